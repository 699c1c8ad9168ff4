//! Clients that say nothing, say it slowly, or take no answers. They are given the time that an honest one may need, all at once here, and
//! then cut off.

use std::time::Duration;

use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{PutCampaignRequest, PutTermsRequest, TailRequest};
use kiki::runtime::channel;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::raw::*;
use super::{Scene, acme, host, soon, times};

const CHECK: &str = "/kiki.syncshield.v1.SyncShieldService/Check";
const TAIL: &str = "/kiki.syncshield.v1.SyncShieldService/Tail";
/// Between two bytes of a slow client.
const SLOWLY: Duration = Duration::from_secs(1);
/// Records of the log, and what each has at least.
const RECORDS: usize = 128;
const BYTES: usize = 40_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_silent_or_slow_or_takes_no_answers_is_cut_off() {
    let mut scene = Scene::start().await;
    fill(&scene.at.shield).await;
    scene.count_from_here(); // 128 campaigns that nobody sent in malice are 60 to 95 MiB, in all services together
    let (grpc, http) = (&scene.at.shield, &scene.at.flow_http);
    let mut clients = JoinSet::new();
    for _ in 0..16 * times() {
        for face in [grpc, &scene.at.value, http] {
            for said in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
                clients.spawn(silent(face.clone(), said));
            }
            if times() > 1 {
                clients.spawn(answers_nothing(face.clone())); // 50 s
            }
        }
        clients.spawn(slow(http.clone(), "GET /click HTTP/1.1\r\nhost: x\r\nx-slow: ", None));
        clients.spawn(slow(http.clone(), "POST /openrtb2/x1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n", Some("408")));
        clients.spawn(half_a_message(grpc.clone(), CHECK, Vec::new()));
        clients.spawn(half_a_message(grpc.clone(), CHECK, message(&[0; 100])[..50].to_vec()));
        clients.spawn(half_a_message(scene.at.flow.clone(), "/kiki.syncflow.v1.SyncFlowService/BidStream", vec![0, 0]));
    }
    // Nearly all of the 256 that SyncShield takes: when all are taken, whoever comes is refused until some of them are cut off.
    let readers = times().min(5);
    for window in [0, 1, 100_000] {
        for _ in 0..4 * readers {
            clients.spawn(reads_nothing(grpc.clone(), window, 4));
        }
    }
    while let Some(client) = soon("clients that are to be cut off", clients.join_next()).await {
        client.unwrap();
    }
    // 48 readers have 3 MiB each.
    scene.end("silent and slow clients", 64 + (48 * 3 * readers) as u64).await;
}

/// Records to be read: 5 MB.
async fn fill(shield: &str) {
    let mut shield = SyncShieldServiceClient::new(channel(shield).unwrap());
    shield.put_terms(PutTermsRequest { client: "acme".into(), terms: Some(acme::terms()) }).await.unwrap();
    for n in 0..RECORDS {
        let campaign = leaf::Campaign {
            campaign: format!("c{n}"),
            currency: "USD".into(),
            zone: "UTC".into(),
            limit_total_micros: 1_000_000_000,
            target_roas_ppm: 3_000_000,
            creatives: vec![acme::banner("b", &"x".repeat(BYTES))],
            ..Default::default()
        };
        shield.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    }
}

/// Says so much and no more, until it is cut off.
async fn silent(address: String, said: &'static [u8]) {
    let mut tcp = TcpStream::connect(host(&address)).await.unwrap();
    tcp.write_all(said).await.unwrap();
    let _ = tcp.read_to_end(&mut Vec::new()).await; // an end or a reset
}

/// Opens HTTP/2 and answers nothing: by PING it is noticed.
async fn answers_nothing(address: String) {
    let Raw(mut tcp) = Raw::open(&address, 65_535).await;
    let _ = tcp.read_to_end(&mut Vec::new()).await;
}

/// Goes on byte by byte until it is cut off, which may be with a status.
async fn slow(address: String, said: &'static str, wanted: Option<&str>) {
    let mut tcp = TcpStream::connect(host(&address)).await.unwrap();
    tcp.write_all(said.as_bytes()).await.unwrap();
    let (mut reader, mut writer) = tcp.into_split();
    let dribble = tokio::spawn(async move {
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SLOWLY).await; // it is slow
        }
    });
    let mut answer = Vec::new();
    let _ = reader.read_to_end(&mut answer).await;
    dribble.abort();
    let answer = String::from_utf8_lossy(&answer);
    assert!(wanted.is_none_or(|wanted| answer.split(' ').nth(1) == Some(wanted)), "{said:?}: {answer:?}");
}

/// Sends a part of a message: the call ends with an error, and its connection does not.
async fn half_a_message(address: String, path: &str, part: Vec<u8>) {
    let mut raw = Raw::open(&address, 65_535).await;
    raw.call(1, path, &part, 0).await.unwrap();
    loop {
        let end = raw.until(&[HEADERS, RST_STREAM]).await.expect("the connection goes on");
        if end.kind == RST_STREAM || end.flags & END_STREAM != 0 {
            break;
        }
    }
    raw.send(&frame(PING, 0, 0, &[7; 8])).await.unwrap();
    while raw.until(&[PING]).await.expect("the connection goes on").flags & ACK == 0 {}
}

/// Tails the log on so many streams and never asks for more than the first bytes; it answers each PING.
async fn reads_nothing(address: String, window: u32, streams: u32) {
    let mut raw = Raw::open(&address, window).await;
    for stream in (0..streams).map(|n| 2 * n + 1) {
        let request = message(&TailRequest { follow: true, ..Default::default() }.encode_to_vec());
        raw.call(stream, TAIL, &request, END_STREAM).await.unwrap();
    }
    let (mut bytes, mut refused) = (0, 0);
    while let Some(frame) = raw.next().await {
        match frame.kind {
            DATA => bytes += frame.payload.len(),
            HEADERS if frame.flags & END_STREAM != 0 => refused += 1, // there are as many readers as there may be
            _ => {}
        }
        if refused == streams {
            return;
        }
    }
    assert!(bytes <= (window.min(65_535) * streams) as usize, "{bytes} bytes came by a window of {window}");
}
