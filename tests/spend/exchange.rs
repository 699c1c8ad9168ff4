//! A small exchange: it offers impressions to the bidders, keeps auctions, and sends notices with the faults of the field.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kiki::ids::Key;
use kiki::leaf;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::*;
use syncflow::domain::receipt::{Purpose, ReceiptKeys};
use tonic::transport::{Channel, Endpoint};

use crate::book::{Book, Fate, Slot};
use crate::hosts::{BIDDERS, RECEIPT_KEY};
use crate::net;
use crate::rng::Rng;

/// How long an answer counts, and how long a notice waits for its acknowledgement.
const TMAX: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_millis(800);
/// It settles on its win notice; the other one on its bill.
const SETTLES_ON_WIN: &str = "x2";

type Client = SyncFlowServiceClient<Channel>;

/// Its connections and its book.
pub(crate) struct Exchange {
    clients: RefCell<Vec<Client>>,
    receipts: ReceiptKeys,
    pub book: RefCell<Book>,
    /// Its notices may say less than what it charges.
    pub lies: bool,
}

/// A bid in the auction.
struct Bidding {
    receipt: String,
    slot: Slot,
    /// What was bid, nanos.
    price: i64,
    settles_on_win: bool,
}

fn client(bidder: usize) -> Client {
    let endpoint = Endpoint::from_static("http://bidder:50052").connect_timeout(TMAX);
    Client::new(net::channel(endpoint, ["bidder-0:50052", "bidder-1:50052"][bidder]))
}

impl Exchange {
    pub(crate) fn new(limit: i64, lies: bool) -> Rc<Self> {
        let receipts = ReceiptKeys::new(&Key::new(RECEIPT_KEY), &[]);
        let book = RefCell::new(Book { limit, ..Book::default() });
        Rc::new(Self { clients: RefCell::default(), receipts, book, lies })
    }

    /// Offers so many impressions, about one in `every`, and sends all notices.
    pub(crate) async fn run(self: Rc<Self>, mut rng: Rng, count: u64, every: Duration) -> turmoil::Result {
        *self.clients.borrow_mut() = (0..BIDDERS).map(client).collect();
        let mut auctions = Vec::new();
        for n in 0..count {
            tokio::time::sleep(every.mul_f64(rng.below(2_000) as f64 / 1_000.0)).await;
            let (exchange, lots) = (self.clone(), Rng::new(rng.next()));
            auctions.push(tokio::task::spawn_local(exchange.auction(n, lots)));
        }
        for auction in auctions {
            auction.await?;
        }
        Ok(())
    }

    async fn auction(self: Rc<Self>, number: u64, mut rng: Rng) {
        // Some requests are sent again: to the same bidder, or to the other one.
        for _ in 0..1 + u64::from(rng.one_in(15)) {
            let exchange = if rng.one_in(2) { "x1" } else { SETTLES_ON_WIN };
            let bidder = rng.below(BIDDERS as u64) as usize;
            if let Some(bid) = self.ask(number, exchange, bidder).await {
                return self.close(bid, rng).await;
            }
        }
    }

    /// Asks for a bid; none where there is none in time.
    async fn ask(&self, number: u64, exchange: &str, bidder: usize) -> Option<Bidding> {
        let opportunity = Opportunity {
            request_id: format!("r{number}"),
            imp_id: "1".into(),
            exchange: exchange.into(),
            format: leaf::CreativeFormat::Banner.into(),
            width: 300,
            height: 250,
            tmax_ms: TMAX.as_millis() as u32,
            ..Default::default()
        };
        let request = BidRequest { opportunity: Some(opportunity), await_durable: false };
        let Some(answer) = self.call(bidder, TMAX, |mut client| async move { client.bid(request).await }).await else {
            self.book.borrow_mut().stats.unanswered += 1;
            return None;
        };
        match answer.result? {
            bid_response::Result::Bid(bid) => {
                let receipt = self.receipts.open(&bid.receipt, Purpose::Notice).ok()?;
                let slot = (receipt.lease_id, receipt.sequence);
                self.book.borrow_mut().bid(slot, bid.price_nanos);
                Some(Bidding { receipt: bid.receipt, slot, price: bid.price_nanos, settles_on_win: exchange == SETTLES_ON_WIN })
            }
            bid_response::Result::NoBid(no) => {
                self.book.borrow_mut().stats.no_budget += u64::from(no.reason() == NoBidReason::Budget);
                None
            }
        }
    }

    /// Keeps the auction, and sends what notices there are.
    async fn close(self: Rc<Self>, bid: Bidding, mut rng: Rng) {
        tokio::time::sleep(Duration::from_millis(rng.below(300))).await;
        let charge = 1 + rng.below(bid.price as u64) as i64;
        let won = !rng.one_in(3);
        self.book.borrow_mut().decide(bid.slot, if won { Fate::Charged(charge) } else { Fate::Lost });
        let notice =
            |kind: NoticeKind, price_nanos| Notice { kind: kind.into(), receipt: bid.receipt.clone(), price_nanos, ..Default::default() };
        let settles = if bid.settles_on_win { NoticeKind::Win } else { NoticeKind::Bill };
        let other = if bid.settles_on_win { NoticeKind::Bill } else { NoticeKind::Win };
        let mut notices = Vec::new();
        if won {
            notices.push((notice(other, charge), None));
            notices.push((notice(settles, charge), Some(Some(charge))));
            if rng.one_in(8) {
                notices.push((notice(settles, bid.price + 1), None)); // above the bid: it is refused
            }
            if self.lies && rng.one_in(8) {
                let (kind, said) = if rng.one_in(2) { (settles, charge / 2) } else { (NoticeKind::Loss, 0) };
                self.book.borrow_mut().understated += charge - said;
                notices.push((notice(kind, said), Some((kind == settles).then_some(said))));
            }
        } else {
            notices.push((notice(NoticeKind::Loss, 0), Some(None)));
        }
        if rng.one_in(6) {
            let copy = notices[rng.below(notices.len() as u64) as usize].clone();
            notices.push(copy);
        }
        let send = |(notice, says)| tokio::task::spawn_local(self.clone().send(notice, says, (bid.slot, bid.price), Rng::new(rng.next())));
        let sent: Vec<_> = notices.into_iter().map(send).collect();
        for sent in sent {
            sent.await.unwrap();
        }
    }

    /// Sends a notice once it is time, to any bidder, again if it is not acknowledged; now and then it is lost.
    async fn send(self: Rc<Self>, notice: Notice, says: Option<Option<i64>>, bid: (Slot, i64), mut rng: Rng) {
        let late = if rng.one_in(5) { 6_000 } else { 200 };
        tokio::time::sleep(Duration::from_millis(rng.below(late))).await;
        let tries = if rng.one_in(8) { 0 } else { 1 + rng.below(3) };
        for _ in 0..tries {
            let request = NotifyRequest { notices: vec![notice.clone()] };
            let bidder = rng.below(BIDDERS as u64) as usize;
            let answer = self.call(bidder, PATIENCE, |mut client| async move { client.notify(request).await }).await;
            if let Some(result) = answer.and_then(|answer| answer.results.into_iter().next()) {
                return self.acknowledged(&notice, says, bid, &result);
            }
        }
        self.book.borrow_mut().stats.lost_notices += 1;
    }

    fn acknowledged(&self, notice: &Notice, says: Option<Option<i64>>, (slot, price): (Slot, i64), result: &NoticeResult) {
        let mut book = self.book.borrow_mut();
        let status = result.status();
        book.stats.refused += u64::from(status == NoticeStatus::Refused);
        book.stats.conflicts += u64::from(status == NoticeStatus::Conflict);
        book.stats.duplicates += u64::from(status == NoticeStatus::Duplicate);
        let good = match says {
            Some(_) if self.lies => matches!(status, NoticeStatus::Applied | NoticeStatus::Duplicate | NoticeStatus::Conflict),
            Some(_) => matches!(status, NoticeStatus::Applied | NoticeStatus::Duplicate),
            None if notice.price_nanos > price => status == NoticeStatus::Refused,
            None => status == NoticeStatus::Noted,
        };
        if !good {
            book.wrong.push(format!("notice {:?} of slot {slot:?} at {}: {result:?}", notice.kind(), notice.price_nanos));
        }
        if let (Some(charge), NoticeStatus::Applied | NoticeStatus::Duplicate) = (says, status) {
            book.told(slot, charge);
        }
    }

    /// Calls a bidder; nothing where it did not answer, and then there is a new connection.
    async fn call<T, F>(&self, bidder: usize, patience: Duration, ask: impl FnOnce(Client) -> F) -> Option<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let client = self.clients.borrow()[bidder].clone();
        match tokio::time::timeout(patience, ask(client)).await {
            Ok(Ok(answer)) => return Some(answer.into_inner()),
            // SyncShield is out of reach: the notice is to be sent again.
            Ok(Err(status)) if status.code() == tonic::Code::Unavailable && !status.message().contains("transport") => {}
            _ => self.clients.borrow_mut()[bidder] = self::client(bidder),
        }
        None
    }
}
