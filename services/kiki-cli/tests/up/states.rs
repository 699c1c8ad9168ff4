//! `kiki up --states`: customers in Redis.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use kiki::clock::monotonic;

use crate::server::Server;
use crate::start;

/// How many values a Redis has.
fn values(redis: &Server) -> String {
    let mut tcp = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    tcp.write_all(b"DBSIZE\r\n").unwrap();
    let mut answer = String::new();
    BufReader::new(tcp).read_line(&mut answer).unwrap();
    answer.trim().into()
}

#[test]
fn purchases_reach_customers_in_redis() {
    let (redis, dir) = (Server::start_or_install(), tempfile::tempdir().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
    command.args(["up", "--ports", "auto", "--states", &redis.url(), "--data"]).arg(dir.path().join("data"));
    let (_running, said) = start(&mut command);
    let row = said.iter().find(|line| line.starts_with("syncflow")).unwrap_or_else(|| panic!("{said:?}"));
    let flow = format!("http://{}", row.split_whitespace().nth(1).unwrap());
    let file = dir.path().join("purchases.csv");
    let rows = "e1,ada,USD,12.50,2026-01-05T10:00:00Z\ne2,ada,USD,3.00,2026-01-06T10:00:00Z\ne3,bob,EUR,7.00,2026-01-06T11:00:00Z\n";
    fs::write(&file, format!("event_id,customer,currency,value,occurred_at\n{rows}")).unwrap();
    let put = Command::new(env!("CARGO_BIN_EXE_kiki"))
        .args(["put", "purchases", "--client", "acme", "--flow", &flow])
        .arg(&file)
        .output()
        .unwrap();
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    // SyncValue follows the log behind the answer.
    let end = monotonic() + Duration::from_secs(30);
    while values(&redis) != ":2" {
        assert!(monotonic() < end, "{} customers in Redis", values(&redis));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(dir.path().join("data/syncvalue/shared").is_dir() && !dir.path().join("data/syncvalue/events.wal").exists());
}
