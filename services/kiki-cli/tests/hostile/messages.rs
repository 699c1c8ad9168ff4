//! Messages and documents that are too long, broken, or bombs.

use std::io::Write as _;

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::raw::message;
use super::{Scene, host, soon, times};

const CHECK: &str = "/kiki.syncshield.v1.SyncShieldService/Check";
const BID: &str = "/kiki.syncflow.v1.SyncFlowService/Bid";
const PREDICT: &str = "/kiki.syncvalue.v1.SyncValueService/Predict";
const LIST: &str = "/kiki.billing.v1.BillingService/ListInvoices";

/// gRPC's codes.
const OUT_OF_RANGE: u32 = 11;
const UNIMPLEMENTED: u32 = 12;

/// What a call is answered with: gRPC's code.
async fn code(url: &str, headers: &[(&str, &[u8])], body: Vec<u8>) -> u32 {
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<bytes::Bytes>>();
    let mut request = Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = soon(url, client.request(request.body(Full::from(body)).unwrap())).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK, "{url}");
    let (head, body) = answer.into_parts();
    let whole = soon("the answer's end", body.collect()).await.expect("an answer to its end");
    let code = head.headers.get("grpc-status").or_else(|| whole.trailers()?.get("grpc-status"));
    code.expect("a code").to_str().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_and_endless_messages_are_refused_by_grpc() {
    let scene = Scene::start().await;
    let at = &scene.at;
    for url in [(&at.shield, CHECK), (&at.flow, BID), (&at.value, PREDICT), (&at.billing, LIST)].map(|(at, path)| format!("{at}{path}")) {
        for (length, what) in [(u32::MAX, "4 GiB"), ((8 << 20) + 1, "a byte too many")] {
            let body = [&[0], &length.to_be_bytes()[..], &[7; 100]].concat();
            assert_eq!(code(&url, &[], body).await, OUT_OF_RANGE, "{url}: {what}");
        }
        // The first field of each is a string or a message.
        let deep = message(&vec![0x0b; 1 << 20]); // groups in groups
        let invalid = message(&[0x0a, 4, 0xff, 0xfe, 0xff, 0xfe]);
        let cut = [&[0], &100_u32.to_be_bytes()[..], &[7; 10]].concat();
        let longer_than_it_is = message(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]);
        let (flagged, no_flag) = ([&[1], &message(b"x")[1..]].concat(), [&[7], &message(b"x")[1..]].concat());
        for (body, what) in [
            (deep, "groups in groups"),
            (invalid, "no UTF-8"),
            (cut, "cut short"),
            (longer_than_it_is, "a field longer than its message"),
            (flagged, "compressed by nothing"),
            (no_flag, "a flag that there is not"),
            (Vec::new(), "no message"),
        ] {
            assert_ne!(code(&url, &[], body).await, 0, "{url}: {what}");
        }
        let bomb = [&[1], &message(&gzip(64 << 20))[1..]].concat();
        assert_eq!(code(&url, &[("grpc-encoding", b"gzip")], bomb).await, UNIMPLEMENTED, "{url}: nothing is unpacked");
        for timeout in ["99999999H", "0n", "1n", "-1S", "1", "", "999999999999999999999S", "H", "\u{1f4a3}S"] {
            let headers = [("grpc-timeout", timeout.as_bytes())];
            let code = code(&url, &headers, message(&[])).await; // whatever it says, it comes
            println!("{url}: a timeout of {timeout:?}: {code}");
        }
    }
    scene.end("messages", 64).await;
}

/// So many blanks, which JSON may begin with.
fn gzip(length: usize) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..length / (1 << 20) {
        gzip.write_all(&[b' '; 1 << 20]).unwrap();
    }
    gzip.finish().unwrap()
}

/// What is sent over HTTP/1 is answered with: its status; none where it is cut off.
async fn status(address: &str, head: &str, body: &[u8]) -> Option<u16> {
    let mut tcp = TcpStream::connect(host(address)).await.expect("a connection");
    let request = [format!("{head}\r\n\r\n").as_bytes(), body].concat();
    let (mut reader, mut writer) = tcp.split();
    let mut answer = [0; 12];
    let (_, read) = soon(head, async { tokio::join!(writer.write_all(&request), reader.read_exact(&mut answer)) }).await;
    read.ok().map(|_| String::from_utf8_lossy(&answer[9..]).parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_and_endless_documents_are_refused_over_http() {
    let scene = Scene::start().await;
    let flow = &scene.at.flow_http;
    let post = |body: &[u8]| format!("POST /openrtb2/x1 HTTP/1.1\r\nhost: x\r\ncontent-length: {}", body.len());
    let deep = "[".repeat(200_000).into_bytes();
    let open = br#"{"id":"r","imp":["#.to_vec();
    for (body, what) in [
        (b"{\"id\":\"\xff\xfe\"}".to_vec(), "no UTF-8"),
        (deep, "lists in lists"),
        (open, "cut short"),
        (vec![b' '; 300 << 10], "too long"),
    ] {
        assert_eq!(status(flow, &post(&body), &body).await, Some(400), "{what}");
    }
    let bomb = gzip(64 << 20);
    let cut = bomb[..bomb.len() / 2].to_vec();
    for (body, what) in [(bomb.clone(), "a bomb"), (cut, "cut short"), (b"no gzip".to_vec(), "no gzip")] {
        assert_eq!(status(flow, &format!("{}\r\ncontent-encoding: gzip", post(&body)), &body).await, Some(400), "{what}");
    }
    let head = "POST /openrtb2/x1 HTTP/1.1\r\nhost: x";
    let long = |n: usize| "x".repeat(n);
    for (head, body, what, wanted) in [
        (format!("{head}\r\ncontent-length: 99999999999"), vec![b' '; 300 << 10], "a body of 100 GB", 400),
        (format!("{head}\r\ncontent-length: 99999999999999999999999"), Vec::new(), "a length that is no number", 400),
        (format!("{head}\r\ntransfer-encoding: chunked\r\ncontent-length: 5"), b"0\r\n\r\nGET /".to_vec(), "two lengths", 400),
        (format!("{head}\r\ntransfer-encoding: chunked"), b"zz\r\n".to_vec(), "a chunk of no length", 400),
        (format!("{head}\r\ntransfer-encoding: chunked"), [b"fffff\r\n", &[b' '; 300 << 10][..]].concat(), "a long chunk", 400),
        (format!("{head}\r\nx-long: {}", long(100_000)), Vec::new(), "a long header", 431),
        (format!("{head}\r\n{}", "x: y\r\n".repeat(200)), Vec::new(), "many headers", 431),
        (format!("GET /{} HTTP/1.1\r\nhost: x", long(100_000)), Vec::new(), "a long path", 414),
    ] {
        let answer = status(flow, &head, &body).await;
        // What is cut off while it still sends may not hear why.
        assert!(
            answer.is_none() || answer.is_some_and(|answer| answer == wanted || (wanted == 414 && answer == 431)),
            "{what}: {answer:?}"
        );
    }
    let check = format!("POST /check HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}", 65 << 10);
    assert_eq!(status(&scene.at.shield_http, &check, &vec![b' '; 65 << 10]).await, Some(413));

    // Unpacked they were 4 GiB.
    let bombs = (0..64 * times()).map(|_| {
        let (flow, bomb) = (flow.clone(), bomb.clone());
        let head = format!("{}\r\ncontent-encoding: gzip", post(&bomb));
        tokio::spawn(async move { status(&flow, &head, &bomb).await })
    });
    for bomb in bombs.collect::<Vec<_>>() {
        // 204 is what is turned away while so many are looked at.
        let answer = bomb.await.unwrap();
        assert!(matches!(answer, Some(400 | 204)), "{answer:?}");
    }
    scene.end("documents", 128).await;
}
