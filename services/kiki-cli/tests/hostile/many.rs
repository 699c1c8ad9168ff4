//! More connections, calls and bytes than a service has room for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::Request;
use hyper::body::{Body, Frame};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::raw::*;
use super::{Scene, files, soon, times};

const CHECK: &str = "/kiki.syncshield.v1.SyncShieldService/Check";
/// Idle connections, of a service's gRPC and of one's HTTP.
const IDLE: usize = 10_000;
/// File descriptors for everything else.
const OTHERS: usize = 500;
/// Streams of a connection, of which 9 would have more calls under way than there may be.
const STREAMS: u32 = 1_024;
const GREEDY: usize = 9;
/// Calls that may be under way.
const MAX_CALLS: usize = 8_192;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_idle_connections_hold_up_nobody() {
    let scene = Scene::start().await;
    let connections = IDLE.min(files().saturating_sub(OTHERS));
    if connections < IDLE {
        eprintln!("hostile: NOT {IDLE} connections but {connections}: this process may have no more files (ulimit -Hn)");
    }
    let mut open = Vec::with_capacity(connections);
    for face in [&scene.at.shield, &scene.at.flow_http].into_iter().cycle().take(connections) {
        let mut raw = Raw::open(face, 65_535).await;
        assert_eq!(soon("the server's settings", raw.next()).await.expect("a connection that is open").kind, SETTINGS);
        open.push(raw);
    }
    scene.rounds(5).await;
    drop(open);
    // 28 kB of the process for each, with room.
    scene.end("idle connections", 32 + (connections * (32 << 10)) as u64 / (1 << 20)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_never_finished_leave_others_theirs() {
    let scene = Scene::start().await;
    let (refused, mut refusals) = mpsc::unbounded_channel();
    let mut greedy = JoinSet::new();
    for _ in 0..GREEDY {
        let mut raw = Raw::open(&scene.at.shield, 65_535).await;
        let call = call(CHECK);
        let calls: Vec<u8> = (0..STREAMS).flat_map(|n| frame(HEADERS, END_HEADERS, 2 * n + 1, &call)).collect();
        raw.send(&calls).await.unwrap();
        let refused = refused.clone();
        greedy.spawn(async move {
            while let Some(head) = raw.until(&[HEADERS]).await {
                assert_eq!(head.flags & END_STREAM, END_STREAM, "an error alone");
                let _ = refused.send(()); // nobody counts any more
            }
        });
    }
    for _ in MAX_CALLS..GREEDY * STREAMS as usize {
        soon("those for which there is no place to be refused", refusals.recv()).await.unwrap();
    }
    scene.rounds(5).await;
    drop(greedy);
    scene.end("calls that are never finished", 128).await;
}

/// So much of the longest message, and then nothing.
struct Part(Option<Bytes>);

impl Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |part| Poll::Ready(Some(Ok(Frame::data(part)))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_never_whole_find_no_more_than_their_room() {
    // 4 GiB are announced and 512 MiB sent, where there is room for 256 MiB of what is announced.
    let (connections, streams, part) = (16 * times(), 32, 1 << 20);
    let scene = Scene::start().await;
    let url = format!("{}{CHECK}", scene.at.shield);
    let sent = Bytes::from([&[0], &(8_u32 << 20).to_be_bytes()[..], &vec![0; part]].concat());
    let mut calls = JoinSet::new();
    for _ in 0..connections {
        let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Part>();
        for _ in 0..streams {
            let request = Request::post(&url).header("content-type", "application/grpc").header("te", "trailers");
            let request = request.body(Part(Some(sent.clone()))).unwrap();
            let client = client.clone();
            calls.spawn(async move {
                let (head, body) = client.request(request).await.expect("an answer").into_parts();
                let whole = body.collect().await.expect("an answer to its end");
                let code = head.headers.get("grpc-status").or_else(|| whole.trailers()?.get("grpc-status"));
                code.expect("a code").to_str().unwrap().to_owned()
            });
        }
    }
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(code) = soon("calls to be refused or late", calls.join_next()).await {
        *codes.entry(code.unwrap()).or_default() += 1;
    }
    // RESOURCE_EXHAUSTED at once, DEADLINE_EXCEEDED for those that had room and never ended.
    assert_eq!(codes.keys().collect::<Vec<_>>(), ["4", "8"], "{codes:?}");
    assert!(codes["4"] <= 256 / 7, "{codes:?}");
    scene.end("messages that are never whole", 256 + 64).await;
}
