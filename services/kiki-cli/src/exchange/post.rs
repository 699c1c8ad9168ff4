//! The post: notices wait here until they are due, and are sent, some at a time.
//!
//! One that is not answered, or answered with 429 or 5xx, is sent again a few times. Only `http://` addresses can be reached.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use super::drive::Event;
use super::notice::Charged;
use super::tally::Delivery;
use crate::http::{Answer, Http};
use crate::replay::auction::Kind;

/// Notices under way at a time: enough that a disk's flush is shared by many.
const IN_FLIGHT: usize = 256;
/// How often one is sent, and the pause before it is sent again: that times how often it was.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(100);

/// A notice on its way.
#[derive(Debug)]
pub(crate) struct Due {
    pub(crate) at: Instant,
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// The currency and what is charged, in the copy that the charge is reckoned by.
    pub(crate) charge: Option<(String, Charged)>,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Delivered {
    pub(crate) kind: Kind,
    /// The bidder's own word for it, or the status, or that there was no answer.
    pub(crate) said: String,
    pub(crate) delivery: Delivery,
    pub(crate) charge: Option<(String, Charged)>,
}

/// Due notices by when, and then by when they were handed in.
struct Queued(Instant, u64, Due);

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Sends what comes in until nothing more does and all of it was sent. `waiting` counts what was handed in and not sent yet.
pub(crate) async fn run(mut incoming: mpsc::Receiver<Vec<Due>>, events: mpsc::Sender<Event>, waiting: Arc<AtomicUsize>) {
    let http = Http::new();
    let mut queue: BinaryHeap<Reverse<Queued>> = BinaryHeap::new();
    let mut flying: JoinSet<Delivered> = JoinSet::new();
    let (mut open, mut handed_in) = (true, 0);
    while open || !queue.is_empty() || !flying.is_empty() {
        let next = queue.peek().map(|Reverse(queued)| queued.0).filter(|_| flying.len() < IN_FLIGHT);
        tokio::select! {
            more = incoming.recv(), if open => match more {
                Some(more) => for due in more {
                    handed_in += 1;
                    queue.push(Reverse(Queued(due.at, handed_in, due)));
                },
                None => open = false,
            },
            Some(Ok(delivered)) = flying.join_next(), if !flying.is_empty() => {
                waiting.fetch_sub(1, Ordering::Relaxed);
                // Nobody to tell only once the run was given up.
                drop(events.send(Event::Delivered(delivered)).await);
            },
            () = until(next), if next.is_some() => {
                if let Some(Reverse(Queued(_, _, due))) = queue.pop() {
                    flying.spawn(deliver(http.clone(), due));
                }
            },
        }
    }
}

async fn until(at: Option<Instant>) {
    if let Some(at) = at {
        sleep_until(at.into()).await;
    }
}

async fn deliver(http: Http, due: Due) -> Delivered {
    let Due { kind, url, charge, .. } = due;
    let mut said = String::new();
    for nth in 1..=TRIES {
        match http.get(&url).await {
            Ok(answer) if !again(&answer) => {
                let delivery = if answer.status.is_success() { Delivery::Told } else { Delivery::Refused };
                return Delivered { kind, said: word(&answer), delivery, charge };
            }
            Ok(answer) => said = answer.status.as_u16().to_string(),
            Err(_) => "unreachable".clone_into(&mut said),
        }
        if nth < TRIES {
            sleep(PAUSE * nth).await; // an exchange lets a bidder come to itself
        }
    }
    Delivered { kind, said, delivery: Delivery::Unanswered, charge }
}

fn again(answer: &Answer) -> bool {
    answer.status.is_server_error() || answer.status.as_u16() == 429
}

#[derive(Deserialize)]
struct Word {
    status: String,
}

fn word(answer: &Answer) -> String {
    match serde_json::from_slice::<Word>(&answer.body) {
        Ok(word) if answer.status.is_success() => word.status,
        _ => answer.status.as_u16().to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use axum::http::{StatusCode, Uri};
    use kiki::clock::monotonic;
    use tokio::net::TcpListener;

    use super::*;

    /// A bidder that is busy for the first notices that it hears.
    async fn bidder() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heard) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let answer = move |uri: Uri| {
            let nth = heard.fetch_add(1, Ordering::Relaxed);
            std::future::ready(match uri.path() {
                "/busy" if nth < 2 => (StatusCode::SERVICE_UNAVAILABLE, ""),
                "/refused" => (StatusCode::BAD_REQUEST, r#"{"status":"refused"}"#),
                _ => (StatusCode::OK, r#"{"status":"applied"}"#),
            })
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    /// What the bidder says to these notices.
    async fn sent(urls: &[String]) -> BTreeMap<String, Delivery> {
        let (letters, incoming) = mpsc::channel(1);
        let (events, mut heard) = mpsc::channel(16);
        let waiting = Arc::new(AtomicUsize::new(urls.len()));
        let post = tokio::spawn(run(incoming, events, waiting.clone()));
        let due = |url: &String| Due { at: monotonic(), kind: Kind::Bill, url: url.clone(), charge: None };
        letters.send(urls.iter().map(due).collect()).await.unwrap();
        drop(letters);
        let mut said = BTreeMap::new();
        while let Some(event) = heard.recv().await {
            let Event::Delivered(delivered) = event else { panic!("not the post's") };
            said.insert(delivered.said, delivered.delivery);
        }
        post.await.unwrap();
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
        said
    }

    #[tokio::test]
    async fn a_notice_is_sent_again_until_it_is_told_or_refused_or_given_up() {
        let at = bidder().await;
        assert_eq!(sent(&[format!("{at}/busy")]).await, BTreeMap::from([("applied".to_owned(), Delivery::Told)]));
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap(); // nobody listens there any more
        let said = sent(&[format!("{at}/refused"), format!("http://{closed}/")]).await;
        let expected = [("400".to_owned(), Delivery::Refused), ("unreachable".to_owned(), Delivery::Unanswered)];
        assert_eq!(said, BTreeMap::from(expected));
    }
}
