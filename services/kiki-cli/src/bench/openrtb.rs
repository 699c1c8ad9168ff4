//! `kiki bench openrtb`: bid requests over HTTP through the whole path, and unary Bid over gRPC, beside hyper that answers 204 and
//! a bare unary echo. All take turns, and each is asked by as many callers, of whom each waits for its answer.

mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiki::pb::syncflow::v1::{BidRequest, BidResponse};
use kiki::runtime::Channel;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;

use super::bids::NoBids;
use super::child::{Platform, Server};
use super::customers::customer;
use super::drive::{self, Measured};
use super::scene::Scene;
use super::target::Target;
use super::turns::Turns;
use super::{Folder, echo, machine, no_content, raw};
use crate::error::{Doing as _, Failure, rpc};
use crate::exchange::{Format, Market, Template};
use crate::http::{Content, Http};
use crate::out;
use crate::random::Draws;
use crate::replay::{generate, requests::Requests};
use report::Report;

const BID: &str = "/kiki.syncflow.v1.SyncFlowService/Bid";
/// How often each takes its turn, after one that does not count. Odd, for medians.
const TURNS: u32 = 5;
/// Requests that the generator makes; they are sent in turn, each time under another id and for another customer.
const REQUESTS: u64 = 1_024;
/// Long enough that nothing is given up.
const TMAX_MS: u32 = 1_000;

/// How requests are sent.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How long each is measured, seconds.
    #[arg(long, default_value_t = 10.0, value_parser = super::bids::seconds)]
    seconds: f64,
    /// Callers; over HTTP each has a connection of its own. More than SyncFlow takes at a time are answered without a bid.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    callers: u16,
    /// Bid requests that are measured too, a JSON document a line: {"request": {...}} or a bare body.
    #[arg(long)]
    requests: Option<PathBuf>,
    /// How requests and answers are written.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Customers that the requests are for; each has bought before.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,
    #[command(flatten)]
    platform: Platform,
    /// Where the servers' data folder is made, and removed afterwards: the disk that decisions go to.
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the figures.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let folder = Folder(args.scratch.join(format!("kiki-bench-{}", std::process::id())));
    std::fs::create_dir(&folder.0).doing(format_args!("making {}", folder.0.display()))?;
    let (servers, at) = args.platform.start(None, &folder.0, &[])?;
    let scene = Scene::set(&at, args.customers).await?;
    scene.bid_for_each().await?;
    let (no_content, no_content_url) = no_content::start_on(None)?;
    let generated: Vec<Value> = (0..REQUESTS).map(biddable).collect();
    let sheet = Sheet::new(&args, &scene, generated)?;
    let (bid, [bid_bytes, answer_bytes]) = Calls::new(&at.flow, &scene).await?;
    let (echo, echo_at) = echo::start(answer_bytes)?;
    let flow_url = format!("{}/openrtb2/bench-exchange", at.flow_http);
    let mut subjects = vec![
        Subject::new("openrtb", &servers, Kind::Http(Box::new(sheet.to(&flow_url))))?,
        Subject::new("no_content", &no_content, Kind::Http(Box::new(sheet.to(&no_content_url))))?,
        Subject::new("bid", &servers, Kind::Bid(bid))?,
        Subject::new("echo", &echo, Kind::Echo(Target::new(&echo_at, CONNECTIONS, echo::UNARY, vec![vec![b'x'; bid_bytes].into()])?))?,
    ];
    if let Some(path) = &args.requests {
        let bodies = Requests::read(path)?.lines.into_iter().filter(|line| !line.known_bad).map(|line| line.body).collect();
        subjects.push(Subject::new("file", &servers, Kind::Http(Box::new(Sheet::new(&args, &scene, bodies)?.to(&flow_url))))?);
    }
    let turn = Duration::from_secs_f64(args.seconds) / TURNS;
    let progress = out::bar("bench openrtb", u64::from(TURNS) + 1);
    for nth in 0..=TURNS {
        for subject in &mut subjects {
            subject.take_turn(args.callers, turn, nth > 0).await?;
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    let bytes = [sheet.body(0).len(), bid_bytes, answer_bytes];
    Report::new(&args, bytes, &subjects)?.print(args.json)
}

/// Connections of gRPC, among which its callers are spread.
const CONNECTIONS: u16 = 4;

/// A request of the generator's, made such that the campaign fits: one banner, in a place that the guardrails allow.
pub(super) fn biddable(line: u64) -> Value {
    let mut body = generate::request(&mut Draws::of(1, "bench", &[line]), line, 0.5);
    let banner = json!({ "w": 300, "h": 250, "format": [{ "w": 300, "h": 250 }], "pos": 1 });
    body["imp"] = json!([{ "id": "1", "secure": 1, "banner": banner, "bidfloor": 0.001, "bidfloorcur": "USD" }]);
    body["cur"] = json!(["USD"]);
    body["test"] = json!(0);
    body["badv"] = json!([]);
    body["device"]["geo"]["country"] = json!("USA");
    for place in ["site", "app"] {
        if let Some(cat) = body.get_mut(place).and_then(|place| place.get_mut("cat")) {
            *cat = json!(["IAB12"]);
        }
    }
    body
}

/// The requests of one kind, and where they go.
#[derive(Clone)]
struct Sheet {
    templates: Arc<[Template]>,
    format: Format,
    customers: u32,
    run: u64,
    number: Arc<AtomicU64>,
    url: Arc<str>,
    http: Http,
    no_bids: NoBids,
}

impl Sheet {
    fn new(args: &Args, scene: &Scene, bodies: Vec<Value>) -> Result<Self, Failure> {
        let nobody = Market { seed: 1, median: 0.0, most: 0 };
        let template = |body| Template::new(body, args.format, None, TMAX_MS, &nobody);
        let templates: Result<Vec<Template>, Failure> = bodies.into_iter().map(template).collect();
        Ok(Self {
            templates: templates?.into(),
            format: args.format,
            customers: args.customers,
            run: scene.next_run().run,
            number: Arc::default(),
            url: "".into(),
            http: Http::new(),
            no_bids: NoBids::default(),
        })
    }

    /// The same requests to another server.
    fn to(&self, url: &str) -> Self {
        Self { url: url.into(), http: Http::new(), no_bids: NoBids::default(), ..self.clone() }
    }

    fn body(&self, number: u64) -> Vec<u8> {
        let customer = customer((number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % u64::from(self.customers));
        let template = &self.templates[(number % self.templates.len() as u64) as usize];
        template.addressed(&format!("{:x}-{number:x}", self.run), Some(&customer))
    }

    async fn ask(&self) -> Result<(usize, bool), Failure> {
        let body = self.body(self.number.fetch_add(1, Ordering::Relaxed));
        let content = Content { kind: self.format.content_type(), gzip: false };
        let answer = self.http.post(&self.url, content, body).await?;
        match answer.status.as_u16() {
            200 => Ok((answer.body.len(), true)),
            204 => {
                self.no_bids.count(answer.no_bid.as_deref().unwrap_or_default());
                Ok((0, false))
            }
            status => Err(Failure::new(format!("{}: {status} {}", self.url, String::from_utf8_lossy(&answer.body)))),
        }
    }
}

/// Unary Bid.
#[derive(Clone)]
struct Calls {
    channels: Arc<[Channel]>,
    scene: Scene,
    number: Arc<AtomicU64>,
    no_bids: NoBids,
}

impl Calls {
    /// With the lengths of a request and of an answer.
    async fn new(flow: &str, scene: &Scene) -> Result<(Self, [usize; 2]), Failure> {
        let channels: Result<Vec<_>, _> = (0..CONNECTIONS).map(|_| kiki::runtime::channel(flow).doing(flow)).collect();
        let calls = Self { channels: channels?.into(), scene: scene.next_run(), number: Arc::default(), no_bids: NoBids::default() };
        let (answer, _) = calls.ask(0).await?;
        let request = calls.request(0);
        Ok((calls, [request.len(), answer]))
    }

    fn request(&self, number: u64) -> Vec<u8> {
        BidRequest { opportunity: Some(self.scene.opportunity(number)), await_durable: false }.encode_to_vec()
    }

    async fn ask(&self, caller: usize) -> Result<(usize, bool), Failure> {
        let request = self.request(self.number.fetch_add(1, Ordering::Relaxed));
        let channel = self.channels[caller % self.channels.len()].clone();
        let answer = match raw::unary(channel, BID, request.into()).await {
            Ok(answer) => answer,
            // As over HTTP, where what is too much is answered without a bid.
            Err(status) if status.code() == Code::ResourceExhausted => {
                self.no_bids.count("OVERLOADED");
                return Ok((0, false));
            }
            Err(status) => return Err(rpc(BID, &status)),
        };
        let bytes = answer.len();
        let answer = BidResponse::decode(answer).doing("reading an answer")?;
        Ok((bytes, self.no_bids.is_bid(answer.result.as_ref())))
    }
}

/// What is measured.
struct Subject {
    name: &'static str,
    pid: u32,
    kind: Kind,
    turns: Turns,
}

enum Kind {
    Http(Box<Sheet>),
    Bid(Calls),
    Echo(Target),
}

impl Subject {
    fn new(name: &'static str, server: &Server, kind: Kind) -> Result<Self, Failure> {
        Ok(Self { name, pid: server.pid(), kind, turns: Turns::new()? })
    }

    async fn take_turn(&mut self, callers: u16, turn: Duration, counts: bool) -> Result<(), Failure> {
        let before = machine::cpu_time(self.pid)?;
        let measured = self.kind.drive(callers, turn).await?;
        let cpu = machine::cpu_time(self.pid)?.saturating_sub(before);
        if counts {
            return self.turns.add((measured, cpu));
        }
        self.no_bids().into_iter().for_each(NoBids::forget);
        Ok(())
    }

    fn no_bids(&self) -> Option<&NoBids> {
        match &self.kind {
            Kind::Http(sheet) => Some(&sheet.no_bids),
            Kind::Bid(calls) => Some(&calls.no_bids),
            Kind::Echo(_) => None,
        }
    }
}

impl Kind {
    async fn drive(&self, callers: u16, turn: Duration) -> Result<Measured, Failure> {
        match self {
            Self::Http(sheet) => {
                let sheet = sheet.clone();
                let ask = move |_| {
                    let sheet = sheet.clone();
                    async move { sheet.ask().await }
                };
                drive::saturated(callers.into(), turn, ask).await
            }
            Self::Bid(calls) => {
                let calls = calls.clone();
                let ask = move |caller| {
                    let calls = calls.clone();
                    async move { calls.ask(caller).await }
                };
                drive::saturated(callers.into(), turn, ask).await
            }
            Self::Echo(target) => target.saturated(callers.div_ceil(CONNECTIONS), turn).await,
        }
    }
}
