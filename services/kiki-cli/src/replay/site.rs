//! Where a month is played: on a platform of this process, or against services that run elsewhere. What is played is the same.

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::tlog::note::VerifyingKey;
use serde::Deserialize;
use syncflow::config::Venues;

use super::auction::{EXCHANGES, Rule};
use super::plan::Plan;
use crate::error::{Doing as _, Failure};
use crate::http::Http;
use crate::invoice;
use crate::platform::{Endpoints, LOG_ID, Platform, PlatformConfig, Ports};

/// How long a lease lives, seconds of virtual time. A request comes every two minutes of it, and a lease that ended between
/// two bids would be renewed for each.
const LEASE_TTL_SECS: u64 = 21_600;
/// Where the clocks of services stand until a replay moves them to its month: before any.
const CLOCK: &str = "replay:1970-01-01T00:00:00Z";

/// Which services are played against.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Against services that run elsewhere")]
pub struct Against {
    /// Plays against services that run elsewhere, one of each, instead of on a platform of this process. They are started for it, with
    /// what `--print-env` says and an empty log, and stay as the month left them.
    #[arg(long, env = "KIKI_REPLAY_AGAINST", conflicts_with = "model")]
    pub against: bool,
    /// Prints the settings that those services need, a NAME=VALUE a line, and plays nothing.
    #[arg(long)]
    pub print_env: bool,
    /// The public key of their log, or a file that holds it: what the month left is verified under it.
    #[arg(long, env = "KIKI_LOG_KEY")]
    pub log_key: Option<String>,
    /// SyncValue, gRPC.
    #[arg(long, env = "KIKI_VALUE", default_value = "http://127.0.0.1:50051")]
    pub value: String,
    /// SyncValue, HTTP.
    #[arg(long, env = "KIKI_VALUE_URL", default_value = "http://127.0.0.1:9091")]
    pub value_url: String,
    /// SyncFlow, gRPC.
    #[arg(long, env = "KIKI_FLOW", default_value = "http://127.0.0.1:50052")]
    pub flow: String,
    /// SyncFlow, HTTP: where bid requests and notices go. SyncFlow has to know it as its own public URL.
    #[arg(long, env = "KIKI_FLOW_URL", default_value = "http://127.0.0.1:8080")]
    pub flow_url: String,
    /// SyncShield, gRPC.
    #[arg(long, env = "KIKI_SHIELD", default_value = "http://127.0.0.1:50053")]
    pub shield: String,
    /// SyncShield, HTTP.
    #[arg(long, env = "KIKI_SHIELD_URL", default_value = "http://127.0.0.1:8081")]
    pub shield_url: String,
    /// Billing, gRPC.
    #[arg(long, env = "KIKI_BILLING", default_value = "http://127.0.0.1:50054")]
    pub billing: String,
    /// Billing, HTTP.
    #[arg(long, env = "KIKI_BILLING_URL", default_value = "http://127.0.0.1:8082")]
    pub billing_url: String,
}

impl Against {
    /// What the services have to be told, where it is not what they take by themselves.
    pub(crate) fn env(&self) -> String {
        let Venues { platforms, settle_on_win, .. } = venues();
        let (platforms, settle_on_win, url) = (platforms.join(","), settle_on_win.join(","), http(&self.flow_url));
        format!(
            "KIKI_CLOCK={CLOCK}\nKIKI_LEASE_TTL_SECS={LEASE_TTL_SECS}\nKIKI_PLATFORMS={platforms}\nKIKI_SETTLE_ON_WIN={settle_on_win}\nKIKI_PUBLIC_URL={url}"
        )
    }

    /// These services.
    ///
    /// # Errors
    /// No key of their log.
    pub(crate) fn site(&self) -> Result<Site, Failure> {
        let none = || Failure::new("--against: what is left is verified under the log's key: name it with --log-key");
        let key = invoice::key(Some(self.log_key.as_deref().ok_or_else(none)?), &[])?;
        let at = Endpoints {
            value: self.value.clone(),
            value_http: http(&self.value_url),
            flow: self.flow.clone(),
            flow_http: http(&self.flow_url),
            shield: self.shield.clone(),
            shield_http: http(&self.shield_url),
            billing: self.billing.clone(),
            billing_http: http(&self.billing_url),
        };
        Ok(Site { log_id: key.name().to_owned(), clock: None, http: Http::new(), key: Some(key), at })
    }
}

/// The address without a slash at its end, as paths are put behind it.
fn http(url: &str) -> String {
    url.trim_end_matches('/').to_owned()
}

/// The exchanges that are played.
fn venues() -> Venues {
    let on_win = EXCHANGES.iter().filter(|exchange| exchange.rule == Rule::FirstOnWin);
    Venues {
        platforms: EXCHANGES.iter().map(|exchange| format!("{}={}", exchange.id, exchange.platform)).collect(),
        settle_on_win: on_win.map(|exchange| exchange.id.to_owned()).collect(),
        ..Venues::default()
    }
}

/// A platform that is played on.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) at: Endpoints,
    pub(crate) log_id: String,
    /// The log's key, where it was given: the files of a log that is elsewhere cannot be read.
    pub(crate) key: Option<VerifyingKey>,
    /// Its clock, where it is one of this process.
    clock: Option<VirtualClock>,
    http: Http,
}

impl Site {
    /// Moves the platform's clock on. SyncShield's first: what it grants and records is then of no earlier instant than what is asked of it.
    pub(crate) async fn advance_to(&self, time: UnixMicros) -> Result<(), Failure> {
        if let Some(clock) = &self.clock {
            clock.advance_to(time);
            return Ok(());
        }
        let (http, Endpoints { value_http, flow_http, shield_http, billing_http, .. }) = (&self.http, &self.at);
        advance(http, shield_http, time).await?;
        tokio::try_join!(advance(http, value_http, time), advance(http, flow_http, time), advance(http, billing_http, time)).map(drop)
    }

    /// Its log is the key's, and nothing was ever written to it: a month is played on a platform of its own, because what it writes stays.
    pub(crate) async fn untouched(&self) -> Result<(), Failure> {
        let url = format!("{}/health", self.at.shield_http);
        let answer = self.http.get(&url).await?;
        let Health { log_id, leaves } = serde_json::from_slice(&answer.body).doing(&url)?;
        if log_id != self.log_id {
            return Err(Failure::new(format!("--log-key is of {}, and the log is {log_id}", self.log_id)));
        }
        match leaves {
            0 => Ok(()),
            leaves => Err(Failure::new(format!("{log_id} has {leaves} leaves already: a month is played on a platform of its own"))),
        }
    }
}

/// What SyncShield says of its log.
#[derive(Debug, Deserialize)]
struct Health {
    log_id: String,
    leaves: u64,
}

async fn advance(http: &Http, service: &str, time: UnixMicros) -> Result<(), Failure> {
    let answer = http.put(&format!("{service}/clock"), time.0.to_string()).await?;
    match answer.status.as_u16() {
        204 => Ok(()),
        404 => Err(Failure::new(format!("{service} is on the system's clock: start it with what --print-env says"))),
        status => Err(Failure::new(format!("moving the clock of {service}: {status} {}", String::from_utf8_lossy(&answer.body)))),
    }
}

/// Starts a platform on the run's folder, its clock at `start`, does something with it, and stops it.
pub(crate) async fn on_platform<T>(
    plan: &Plan,
    start: UnixMicros,
    task: impl AsyncFnOnce(Site) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let clock = VirtualClock::at(start);
    let config = PlatformConfig {
        clock: Clock::Virtual(clock.clone()),
        ports: Ports::Auto,
        lease_ttl_secs: LEASE_TTL_SECS,
        venues: venues(),
        model: Some(plan.dir.join(&plan.settings.model)).filter(|_| !plan.settings.model.as_os_str().is_empty()),
        ..PlatformConfig::new(&plan.dir)
    };
    let platform = Platform::start(config).await?;
    let site = Site { at: platform.endpoints.clone(), log_id: LOG_ID.to_owned(), key: None, clock: Some(clock), http: Http::new() };
    // A service that fails shows as failing calls first; its own error says more.
    let done = tokio::select! {
        biased;
        () = platform.shutdown.cancelled() => Err(Failure::new("the platform stopped")),
        done = task(site) => done,
    };
    match (done, platform.stop().await) {
        (done, Ok(())) => done,
        (Ok(_), Err(stopped)) => Err(stopped),
        (Err(first), Err(stopped)) => Err(Failure::new(format!("{first}; {stopped}"))),
    }
}
