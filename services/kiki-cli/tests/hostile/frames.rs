//! Frames that are wrong, unfinished, or too many.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::raw::*;
use super::{Scene, host, soon, times};

/// The longest frame that gRPC's listeners take.
const MAX_FRAME: usize = 64 << 10;
/// A call that SyncShield has, and others refuse.
const CHECK: &str = "/kiki.syncshield.v1.SyncShieldService/Check";

/// How long a flood is sent to one who may have stopped to read it.
const STUCK: Duration = Duration::from_secs(2);

/// gRPC on the caller's threads, gRPC on a thread a core, and HTTP.
fn faces(scene: &Scene) -> [String; 3] {
    [scene.at.shield.clone(), scene.at.value.clone(), scene.at.flow_http.clone()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_and_unfinished_frames_end_their_connection_alone() {
    let scene = Scene::start().await;
    for face in faces(&scene) {
        let mut raw = Raw::open(&face, 65_535).await;
        raw.send(&head(MAX_FRAME + 1, DATA, 0, 1)).await.unwrap();
        assert_eq!(soon("a frame that is too long", raw.ended()).await, Some(FRAME_SIZE_ERROR), "{face}");
        for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello to plaintext"[..], &[0xff; 64]] {
            let mut tcp = TcpStream::connect(host(&face)).await.unwrap();
            tcp.write_all(garbage).await.unwrap();
            let mut answer = Vec::new();
            let _ = soon("the end of garbage", tcp.read_to_end(&mut answer)).await; // an end or a reset
            assert!(!answer.starts_with(b"HTTP/1.1 2"), "{face}");
        }
        for wrong in [frame(CONTINUATION, END_HEADERS, 1, b"x"), frame(HEADERS, END_HEADERS, 2, &call(CHECK)), frame(DATA, 0, 0, b"x")] {
            let mut raw = Raw::open(&face, 65_535).await;
            raw.send(&wrong).await.unwrap();
            assert_ne!(soon("a frame out of place", raw.ended()).await, Some(0), "{face}");
        }
    }
    scene.end("wrong frames", 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_their_last_byte_take_what_a_frame_may_have() {
    let (scene, connections) = (Scene::start().await, 256 * times());
    let mut open = Vec::new();
    for face in [&scene.at.shield, &scene.at.value, &scene.at.flow, &scene.at.billing].into_iter().cycle().take(connections) {
        let mut raw = Raw::open(face, 65_535).await;
        raw.send(&frame(HEADERS, END_HEADERS, 1, &call(CHECK))).await.unwrap();
        let unfinished = [head(MAX_FRAME, DATA, 0, 1), vec![0; MAX_FRAME - 1]].concat();
        soon("to send what is no frame yet", raw.send(&unfinished)).await.unwrap();
        open.push(raw);
    }
    // Beside the frame a connection takes some tens of kilobytes.
    scene.end("unfinished frames", 32 + (connections * (MAX_FRAME + (64 << 10))) as u64 / (1 << 20)).await;
    drop(open);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_headers_resets_and_pings_are_ended_or_borne() {
    let scene = Scene::start().await;
    for face in faces(&scene) {
        // A head that never ends.
        let mut raw = Raw::open(&face, 65_535).await;
        let piece = frame(CONTINUATION, 0, 1, &field("x-flood", &"x".repeat(100)));
        let flood = [frame(HEADERS, END_STREAM, 1, &call(CHECK)), piece.repeat(5_000 * times())].concat();
        let _ = soon("to send a flood of CONTINUATION", raw.send(&flood)).await; // it may be cut off on the way
        assert!(matches!(soon("a flood of CONTINUATION", raw.ended()).await, None | Some(ENHANCE_YOUR_CALM)), "{face}");

        // A field of 4,000 bytes that is entered in the table of HPACK (RFC 7541, 6.2.1), and then named by one byte each time.
        let entered = [&[0x40, 1, b'x', 127, 0xa1, 0x1e][..], &[b'x'; 4_000]].concat();
        let bomb = [call(CHECK), entered, vec![0xbe; 10_000]].concat();
        let mut raw = Raw::open(&face, 65_535).await;
        soon("to send a header bomb", raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb))).await.unwrap();
        let answer = soon("a header bomb", raw.until(&[HEADERS, RST_STREAM, GOAWAY])).await;
        assert!(answer.is_none_or(|frame| frame.kind != HEADERS || frame.flags & END_STREAM != 0), "{face}: a head alone, of an error");

        // Rapid reset (CVE-2023-44487): the connection is closed, or has served it all and still answers.
        let mut raw = Raw::open(&face, 65_535).await;
        let call = call(CHECK);
        let flood = (0..10_000 * times() as u32)
            .map(|n| 2 * n + 1)
            .flat_map(|stream| [frame(HEADERS, END_HEADERS, stream, &call), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat());
        let _ = soon("to send a flood of resets", raw.send(&flood.collect::<Vec<_>>())).await;
        assert!(matches!(soon("a flood of resets", raw.ended()).await, None | Some(ENHANCE_YOUR_CALM)), "{face}");

        // What must be answered, to one who does not read the answers: the server stops to read.
        let mut raw = Raw::open(&face, 65_535).await;
        let flood = [frame(PING, 0, 0, &[7; 8]), frame(SETTINGS, 0, 0, &[])].concat().repeat(500_000);
        let sent = tokio::time::timeout(STUCK, raw.send(&flood)).await;
        println!("{face}: a flood of PING and SETTINGS was {}", if sent.is_ok() { "borne" } else { "not read to its end" });
    }
    scene.end("floods", 64).await;
}
