//! The run itself: one action after the other in virtual time.
//!
//! Order at one instant: notices, purchases, invoices, the request. Bids are strictly one after the other; the notices
//! of a round go out together and are all answered before anything else happens. What the ledger has already is not
//! done again.

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use kiki::clock::UnixMicros;
use kiki::pb::log::v1::Position;
use kiki::pb::syncflow::v1 as flow;
use kiki::pb::syncvalue::v1 as value;
use kiki::runtime::Channel;
use sha2::{Digest as _, Sha256};

use super::clients::{LOOKBACK_SECONDS, client_of};
use super::events::{DAY, Purchase};
use super::exchange::{self, Due, Shown, Statuses};
use super::journal::{Answer, Charge, Entry, Journal, Past};
use super::plan::Plan;
use super::site::Site;
use crate::close::Biller;
use crate::error::{Doing as _, Failure, rpc};
use crate::http::Http;

/// Purchases in one report, which SyncFlow bounds.
const REPORT: usize = 1_024;
/// How long SyncValue may take to follow a day's purchases.
const FOLLOWING: std::time::Duration = std::time::Duration::from_secs(60);

/// What a run has come to.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Requests that were answered, by this process and those before.
    pub(crate) answered: u64,
    /// Requests whose answers an earlier process had already: the leases of a run that was cut off are others.
    pub(crate) resumed: u64,
    /// Requests with at least one bid.
    pub(crate) with_bids: u64,
    /// Bids, one an impression.
    pub(crate) bids: u64,
    pub(crate) wins: u64,
    /// Requests without a bid, by reason.
    pub(crate) no_bids: BTreeMap<String, u64>,
    /// Requests refused as malformed that the input does not mark so.
    pub(crate) unexpected_400: Vec<String>,
    /// Requests refused as malformed, as the input says they are.
    pub(crate) expected_400: u64,
    pub(crate) statuses: Statuses,
    /// What the exchange charged, by campaign.
    pub(crate) charged: BTreeMap<String, i128>,
    /// Impressions that it charged.
    pub(crate) charges: u64,
    /// Microseconds from a request to its answer, of this process.
    pub(crate) latency: Histogram<u64>,
    /// Time spent waiting for answers, microseconds, of this process.
    pub(crate) bidding_micros: u64,
    pub(crate) purchases: u64,
    /// Which purchases followed a click on an impression: order and impression.
    pub(crate) clicks: Vec<(String, Shown)>,
    pub(crate) invoices: Vec<String>,
    /// Digest over every decision in order.
    pub(crate) digest: Sha256,
}

/// A run in progress.
pub(crate) struct Run<'a> {
    plan: &'a Plan,
    journal: Journal,
    past: Past,
    site: &'a Site,
    http: Http,
    flow: flow::sync_flow_service_client::SyncFlowServiceClient<Channel>,
    value: value::sync_value_service_client::SyncValueServiceClient<Channel>,
    biller: Biller,
    tally: Tally,
    /// Notices that are due, by round.
    due: BTreeMap<UnixMicros, Vec<Due>>,
    /// What each customer was shown and the exchange charged.
    shown: HashMap<String, Vec<Shown>>,
}

enum Step {
    Notices(UnixMicros),
    Purchases(UnixMicros),
    Invoices(UnixMicros),
    Request(u64, UnixMicros),
}

impl<'a> Run<'a> {
    pub(crate) fn new(plan: &'a Plan, journal: Journal, past: Past, site: &'a Site) -> Result<Self, Failure> {
        let tally = Tally {
            answered: 0,
            resumed: 0,
            with_bids: 0,
            bids: 0,
            wins: 0,
            no_bids: BTreeMap::new(),
            unexpected_400: Vec::new(),
            expected_400: 0,
            statuses: Statuses::new(),
            charged: BTreeMap::new(),
            charges: 0,
            latency: Histogram::new(3).doing("making a histogram")?,
            bidding_micros: 0,
            purchases: 0,
            clicks: Vec::new(),
            invoices: Vec::new(),
            digest: Sha256::new(),
        };
        Ok(Self {
            plan,
            journal,
            past,
            site,
            http: Http::new(),
            flow: flow::sync_flow_service_client::SyncFlowServiceClient::new(super::open(&site.at.flow)?)
                .max_decoding_message_size(kiki::runtime::MAX_MESSAGE),
            value: value::sync_value_service_client::SyncValueServiceClient::new(super::open(&site.at.value)?),
            biller: Biller::new(super::open(&site.at.billing)?),
            tally,
            due: BTreeMap::new(),
            shown: HashMap::new(),
        })
    }

    /// Goes through the whole month and what follows it.
    pub(crate) async fn drive(mut self, bar: &ProgressBar) -> Result<Tally, Failure> {
        let mut request = 0;
        let mut day = super::events::noon_at_or_after(self.plan.begin);
        let mut invoices = self.plan.invoiced_at.to_vec();
        invoices.reverse();
        loop {
            let step = self.next(request, day, invoices.last().copied());
            match step {
                None => return Ok(self.tally),
                Some(Step::Notices(at)) => self.notices(at).await?,
                Some(Step::Purchases(at)) => {
                    self.purchases(at).await?;
                    day = UnixMicros(at.0 + DAY);
                }
                Some(Step::Invoices(at)) => {
                    self.invoices(at).await?;
                    invoices.pop();
                }
                Some(Step::Request(number, at)) => {
                    self.request(number, at).await?;
                    bar.inc(1);
                    request += 1;
                }
            }
        }
    }

    /// What is to be done next, the earliest first.
    fn next(&self, request: u64, day: UnixMicros, invoice: Option<UnixMicros>) -> Option<Step> {
        let notices = self.due.first_key_value().map(|(at, _)| (*at, 0, Step::Notices(*at)));
        // Purchases are reported up to the last invoice: what comes after it, it cannot see.
        let purchases = invoice.is_some().then_some((day, 1, Step::Purchases(day)));
        let invoices = invoice.map(|at| (at, 2, Step::Invoices(at)));
        let number = (request < self.plan.requests_total()).then_some(request);
        let requests = number.map(|number| self.plan.request_at(number)).map(|at| (at, 3, Step::Request(request, at)));
        [notices, purchases, invoices, requests].into_iter().flatten().min_by_key(|(at, order, _)| (*at, *order)).map(|(_, _, step)| step)
    }

    async fn request(&mut self, number: u64, at: UnixMicros) -> Result<(), Failure> {
        let lines = self.plan.requests.lines.len() as u64;
        let answer = match self.past.answers.remove(&(number / lines, number % lines)) {
            Some(answer) => {
                self.tally.resumed += 1;
                answer
            }
            None => {
                self.site.advance_to(at).await?;
                let start = kiki::clock::monotonic();
                let answer = exchange::ask(&self.http, &self.site.at.flow_http, self.plan, number).await?;
                let took = start.elapsed().as_micros() as u64;
                self.tally.latency.saturating_record(took.max(1));
                self.tally.bidding_micros += took;
                self.journal.add(&Entry::Answer(answer.clone()))?;
                answer
            }
        };
        self.count(&answer);
        let (won, due) = exchange::settle(self.plan, &answer)?;
        self.tally.wins += won;
        for due in due {
            self.due.entry(due.notice.at).or_default().push(due);
        }
        Ok(())
    }

    fn count(&mut self, answer: &Answer) {
        let tally = &mut self.tally;
        tally.answered += 1;
        tally.bids += answer.bids.len() as u64;
        tally.with_bids += u64::from(!answer.bids.is_empty());
        if answer.status == 400 {
            if self.plan.requests.lines[answer.line as usize].known_bad {
                tally.expected_400 += 1;
            } else {
                tally.unexpected_400.push(format!("{}-{}: {}", answer.round, answer.line, answer.reason));
            }
        } else if answer.bids.is_empty() {
            *tally.no_bids.entry(answer.reason.clone()).or_default() += 1;
        }
        let decided: Vec<String> =
            answer.bids.iter().map(|bid| format!("{}:{}/{}:{}", bid.imp, bid.client, bid.campaign, bid.price_nanos)).collect();
        let reason = if answer.status == 400 { "MALFORMED" } else { &answer.reason };
        tally.digest.update(format!("{}-{} {reason} {}\n", answer.round, answer.line, decided.join(" ")));
    }

    async fn notices(&mut self, at: UnixMicros) -> Result<(), Failure> {
        let round = self.due.remove(&at).unwrap_or_default();
        let done = self.past.sent.contains(&at);
        for charge in round.iter().filter_map(|due| due.charge.as_ref()) {
            if self.past.charges.remove(&(charge.round, charge.line, charge.imp.clone())).is_none() {
                self.journal.add(&Entry::Charge(charge.clone()))?;
            }
            self.charged(charge);
        }
        if !done {
            self.site.advance_to(at).await?;
            exchange::send(&self.http, &self.site.at.flow_http, &round, &mut self.tally.statuses).await?;
            self.journal.add(&Entry::Sent { at })?;
        }
        Ok(())
    }

    fn charged(&mut self, charge: &Charge) {
        self.tally.charges += 1;
        *self.tally.charged.entry(format!("{}/{}", charge.client, charge.campaign)).or_default() += i128::from(charge.price_nanos);
        // A receipt can come back only to the client that paid for the impression.
        if client_of(&charge.customer).id == charge.client {
            let shown = Shown { bid_at: charge.bid_at, receipt: charge.receipt.clone(), click: charge.click.clone() };
            self.shown.entry(charge.customer.clone()).or_default().push(shown);
        }
    }

    /// Reports the purchases of one day, and waits until SyncValue has read them from the log.
    async fn purchases(&mut self, at: UnixMicros) -> Result<(), Failure> {
        let day = self.plan.events.between(at, UnixMicros(at.0 + 1));
        self.tally.purchases += day.len() as u64;
        let clicks: Vec<_> = day.iter().filter_map(|p| Some((p.event_id(), self.click(p)?.clone()))).collect();
        self.tally.clicks.extend(clicks);
        if self.past.reported.contains(&at) {
            return Ok(());
        }
        self.site.advance_to(at).await?;
        let mut last = None;
        for some in day.chunks(REPORT) {
            let conversions = some.iter().map(|purchase| self.reported(purchase)).collect();
            let request = flow::ReportConversionsRequest { conversions };
            let answer = self.flow.report_conversions(request).await.map_err(|s| rpc("reporting purchases", &s))?.into_inner();
            if answer.results.len() != some.len() {
                return Err(Failure::new(format!("{} purchases were reported, {} answered", some.len(), answer.results.len())));
            }
            last = last.max(answer.results.iter().filter_map(|r| r.position.as_ref()).map(|position| position.index).max());
        }
        if let Some(index) = last {
            // Up to and with the last of them.
            let followed_to = Some(Position { log_id: self.site.log_id.clone(), index: index + 1 });
            let mut request = tonic::Request::new(value::GetModelRequest { followed_to });
            request.set_timeout(FOLLOWING);
            self.value.get_model(request).await.map_err(|s| rpc("waiting for SyncValue to follow the log", &s))?;
        }
        self.journal.add(&Entry::Reported { at })
    }

    fn reported(&self, purchase: &Purchase) -> flow::ReportedConversion {
        let customer = &self.plan.events.customers[purchase.customer];
        flow::ReportedConversion {
            client: client_of(customer).id.to_owned(),
            event_id: purchase.event_id(),
            customer: customer.clone(),
            currency: self.plan.settings.currency.clone(),
            value_micros: purchase.value_micros,
            occurred_at: Some(purchase.at.into()),
            receipt: self.click(purchase).map(|shown| shown.click.clone()).unwrap_or_default(),
            ..Default::default()
        }
    }

    /// The impression that the customer clicked on before a purchase, if on any.
    fn click(&self, purchase: &Purchase) -> Option<&Shown> {
        let shown = self.shown.get(&self.plan.events.customers[purchase.customer])?;
        exchange::click(self.plan.settings.seed, purchase.row, purchase.at, shown, i64::from(LOOKBACK_SECONDS) * 1_000_000)
    }

    /// Draws up and finalises what can be invoiced by now.
    async fn invoices(&mut self, at: UnixMicros) -> Result<(), Failure> {
        // What came of the earlier ones is in the last one's answer.
        if self.past.invoiced.contains(&at) && self.plan.invoiced_at.last() != Some(&at) {
            return Ok(());
        }
        self.site.advance_to(at).await?;
        // Asked again after a crash, it answers with the same invoices.
        self.tally.invoices = self.biller.close(&self.plan.settings.month, &ProgressBar::hidden()).await?.numbers;
        if !self.past.invoiced.contains(&at) {
            self.journal.add(&Entry::Invoiced { at })?;
        }
        Ok(())
    }
}
