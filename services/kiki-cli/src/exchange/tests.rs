//! The exchange against real services.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use clap::Parser;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{Budget, GetBudgetRequest};
use tokio_util::sync::CancellationToken;

use super::tally::{Sum, Tally};
use super::{Args, Phase, play};
use crate::bench::customers::CLIENT;
use crate::bench::scene::{CAMPAIGN, Scene};
use crate::platform::{Endpoints, Platform, PlatformConfig, Ports};

const CUSTOMERS: u32 = 50;
/// Faults far above what the field has.
const FAULTS: &str = "--late 0.2 --late-by 0.3 --duplicate 0.2 --lost 0.1 --reordered 0.2 --wrong-price 0.2 --unshown 0.1";

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

/// Runs `kiki exchange` with these options to its end.
async fn exchange(at: &Endpoints, options: &str) -> Tally {
    let url = format!("{}/openrtb2/simulated", at.flow_http);
    let fixed = ["exchange", "--url", &url, "--rate", "300", "--duration", "600", "--tmax", "1000", "--competing", "0.7"];
    let args = Command::parse_from(fixed.into_iter().chain(options.split(' '))).args;
    let phase = Phase { rate: args.rate, duration: Duration::from_secs_f64(args.duration) };
    let tally = play(&args, vec![phase], CancellationToken::new(), |_| (), |_| ()).await.unwrap();
    assert_eq!((tally.sent + tally.not_sent, tally.in_time + tally.late), (args.count, tally.sent));
    assert!(tally.errors.is_empty() && tally.invalid.is_empty(), "{:?} {:?}", tally.errors, tally.invalid);
    tally
}

async fn budget(at: &Endpoints) -> Budget {
    let mut shield = SyncShieldServiceClient::new(kiki::runtime::channel(&at.shield).unwrap());
    let request = GetBudgetRequest { client: CLIENT.to_owned(), campaign: CAMPAIGN.to_owned() };
    shield.get_budget(request).await.unwrap().into_inner().budget.unwrap()
}

/// The sums of both, part by part.
fn added(parts: [Sum; 2]) -> Sum {
    Sum { count: parts[0].count + parts[1].count, nanos: parts[0].nanos + parts[1].nanos }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_shield_has_booked_is_what_was_cleared_but_for_what_was_lost_refused_or_told_wrong() {
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(data.path()) }).await.unwrap();
    let at = platform.endpoints.clone();
    Scene::set(&at, CUSTOMERS).await.unwrap();
    let first = exchange(&at, &format!("--count 1500 --auction first --customers {CUSTOMERS} {FAULTS}")).await;
    let second =
        exchange(&at, &format!("--count 1500 --seed 2 --auction second --format protobuf --gzip --http2 --customers {CUSTOMERS} {FAULTS}"))
            .await;
    let budget = budget(&at).await;
    platform.stop().await.unwrap();

    let runs = [&first, &second];
    for tally in runs {
        let drawn = tally.drawn;
        assert!(tally.wins > 20 && tally.bids > tally.wins, "{} of {} bids won", tally.wins, tally.bids);
        let all = [drawn.late, drawn.duplicate, drawn.lost, drawn.reordered, drawn.wrong_price, drawn.unshown];
        assert!(all.iter().all(|count| *count > 0), "a fault that did not happen: {drawn:?}");
        assert!(tally.notices.contains_key("bill applied") && tally.notices.contains_key("bill duplicate"), "{:?}", tally.notices);
    }
    let sum = |of: fn(&super::tally::Money) -> Sum| added(runs.map(|tally| of(&tally.money["USD"])));
    let (owed, told, lost, refused) = (sum(|m| m.owed), sum(|m| m.told), sum(|m| m.lost), sum(|m| m.refused));
    let (booked, unanswered) = (sum(|m| m.booked), sum(|m| m.unanswered));
    assert_eq!(unanswered, Sum::default());
    assert!(lost.count > 0 && refused.count > 0, "none lost ({lost:?}), or none above what was bid ({refused:?})");
    // To the nano: the books of both sides differ by what was lost, what was refused, and what was told other than it was cleared.
    let settled = i128::from(&budget.settled_nanos.unwrap());
    assert_eq!(settled, booked.nanos);
    assert_eq!(settled, owed.nanos - lost.nanos - refused.nanos + (booked.nanos - told.nanos));
    let limit = i128::from(budget.limit_total_micros) * 1_000;
    assert!(
        settled + i128::from(&budget.held_nanos.unwrap()) + i128::from(&budget.leased_nanos.unwrap()) <= limit && !budget.overcommitted
    );
}
