//! `kiki up` with a witness, and the last signed size in another place.

use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

use kiki::leaf;
use kiki::pb::syncshield::v1::PutPolicyRequest;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;

use crate::{start, up, up_in};

fn checkpoint(address: &str) -> String {
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.write_all(b"GET /checkpoint HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    text
}

async fn put_a_policy(shield: &str) {
    let mut client = SyncShieldServiceClient::new(kiki::runtime::channel(shield).unwrap());
    let cap = leaf::BidCap { currency: "USD".into(), cap_nanos: 50_000_000 };
    let policy = leaf::Policy { bid_caps: vec![cap], ..Default::default() };
    client.put_policy(PutPolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_platforms_log_is_cosigned_and_its_signed_size_kept_where_it_is_told_to() {
    // The first start makes the log's key, which the witness is told of.
    let first = up(&[]);
    let data = first.dir.path().join("data");
    let mut witness = Command::new(env!("CARGO_BIN_EXE_kiki"));
    witness.args(["audit", "witness", "--listen", "127.0.0.1:0", "--name", "test.local/witness", "--log"]);
    witness.arg(data.join("log.pub")).arg("--data").arg(first.dir.path().join("witness"));
    let (_witness, said) = start(&mut witness);
    let after = |word: &str| said.iter().find_map(|line| line.strip_prefix(word)).unwrap().trim().to_owned();
    let at = format!("{}+{}", after("listen"), after("witness"));
    let crate::Up { dir, _running: running, .. } = first;
    drop(running);

    let size = dir.path().join("elsewhere");
    let up = up_in(dir, &["--witness", &at, "--signed-size", size.to_str().unwrap()]);
    put_a_policy(&up.shield).await;
    for _ in 0..300 {
        if checkpoint(&up.http).contains("\u{2014} test.local/witness ") {
            assert!(std::fs::read_to_string(&size).unwrap().starts_with("kiki.local/log-1\n"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // the log signs each second
    }
    panic!("not cosigned: {}", checkpoint(&up.http));
}
