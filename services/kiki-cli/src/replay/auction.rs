//! The exchange's side of an auction: who else bids, what the winner pays, and which notices follow and when.
//!
//! Everything is a function of the seed and the impression, so that a run that was cut off goes on as it would have.
//! Notices are sent in rounds every [`ROUND`]: the clock stands still while a round is sent, so that its order does
//! not matter, and a round's instant is when its charges were noticed.

use kiki::clock::UnixMicros;

use crate::random::Draws;

/// Notices go out twice an hour: 1,500 rounds a month, whatever the number of bids.
pub(crate) const ROUND: i64 = 1_800_000_000;
/// The latest that any notice is after its bid: 40 h late, and a repetition 6 h after that, to the next round. Well
/// inside the week in which notices are taken.
pub(crate) const LATEST_HOURS: i64 = 48;

/// How an exchange charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The winner pays the next price, when the ad was shown (BILL).
    SecondOnBill,
    /// The winner pays its own price, when it has won (WIN); no BILL is sent.
    FirstOnWin,
}

/// An exchange that the replay plays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    /// Its id.
    pub(crate) id: &'static str,
    /// The ad platform that it belongs to.
    pub(crate) platform: &'static str,
    /// How it charges.
    pub(crate) rule: Rule,
}

/// The two exchanges.
pub(crate) const EXCHANGES: [Exchange; 2] = [
    Exchange { id: "meridian", platform: "openweb", rule: Rule::SecondOnBill },
    Exchange { id: "northlight", platform: "tradedesk", rule: Rule::FirstOnWin },
];

/// The exchange of that id.
pub(crate) fn exchange(id: &str) -> Option<&'static Exchange> {
    EXCHANGES.iter().find(|exchange| exchange.id == id)
}

/// A kind of notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// The auction was won.
    Win,
    /// The ad was shown and is charged.
    Bill,
    /// The auction was lost, or the ad never shown.
    Loss,
}

impl Kind {
    /// Its name in the notice's path.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Win => "win",
            Self::Bill => "bill",
            Self::Loss => "loss",
        }
    }
}

/// One notice to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notice {
    /// The round that it goes out with.
    pub(crate) at: UnixMicros,
    /// What it says.
    pub(crate) kind: Kind,
    /// What is paid, nanos an impression; 0 for a loss.
    pub(crate) price_nanos: i64,
    /// OpenRTB's loss reason; 0 otherwise.
    pub(crate) loss_reason: u32,
    /// This is the notice that the exchange charges by.
    pub(crate) charges: bool,
}

/// How an auction went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The bid won.
    pub(crate) won: bool,
    /// In order of their rounds.
    pub(crate) notices: Vec<Notice>,
}

/// What a bid competes with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Auction {
    /// The run's seed.
    pub(crate) seed: u64,
    /// Round, line and place of the impression in the answer.
    pub(crate) place: [u64; 3],
    /// How the exchange charges.
    pub(crate) rule: Rule,
    /// Median of the competing price, nanos.
    pub(crate) typical_nanos: i64,
    /// The impression's floor, nanos.
    pub(crate) floor_nanos: i64,
}

/// OpenRTB loss reasons (AdCOM list 5.25): lost to a higher bid, and an impression that expired.
const LOST: u32 = 102;
const EXPIRED: u32 = 2;

impl Auction {
    /// Runs it for a bid of `price_nanos` that was made at `at`.
    pub(crate) fn run(&self, at: UnixMicros, price_nanos: i64) -> Outcome {
        let mut draws = Draws::of(self.seed, "auction", &self.place);
        let competing = draws.lognormal(self.typical_nanos as f64, 0.7).min(1e18) as i64;
        let mut after = |mean_seconds: f64| (draws.exponential(mean_seconds) * 1e6) as i64;
        let (win_after, bill_after) = (after(2.0), after(40.0));
        let never_shown = draws.chance(0.02);
        // A late notice, a repeated one, and a win that is told after its bill.
        let late = if draws.chance(0.05) { 3_600_000_000 + (draws.unit() * 39.0 * 3.6e9) as i64 } else { 0 };
        let again = draws.chance(0.04).then(|| (draws.unit() * 6.0 * 3.6e9) as i64);
        let swapped = draws.chance(0.05);

        let notice =
            |after: i64, kind, price_nanos, loss_reason, charges| Notice { at: round(at, after), kind, price_nanos, loss_reason, charges };
        if price_nanos <= competing {
            return Outcome { won: false, notices: vec![notice(win_after, Kind::Loss, 0, LOST, false)] };
        }
        let mut notices = match self.rule {
            Rule::FirstOnWin => vec![notice(win_after + late, Kind::Win, price_nanos, 0, true)],
            Rule::SecondOnBill => {
                let pays = competing.max(self.floor_nanos).min(price_nanos);
                let shown = win_after + bill_after + late;
                let told = if swapped { shown + ROUND } else { win_after };
                let end = if never_shown { notice(shown, Kind::Loss, 0, EXPIRED, false) } else { notice(shown, Kind::Bill, pays, 0, true) };
                vec![notice(told, Kind::Win, pays, 0, false), end]
            }
        };
        if let (Some(wait), Some(last)) = (again, notices.last().copied()) {
            notices.push(Notice { at: round(last.at, wait), charges: false, ..last });
        }
        notices.sort_by_key(|notice| (notice.at, notice.kind));
        Outcome { won: true, notices }
    }
}

/// The first round at or after `at + after`.
fn round(at: UnixMicros, after: i64) -> UnixMicros {
    let due = at.0 + after;
    UnixMicros(due + (-due).rem_euclid(ROUND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(rule: Rule) -> Vec<Outcome> {
        let auction = |line| Auction { seed: 1, place: [0, line, 0], rule, typical_nanos: 900, floor_nanos: 100 };
        (0..4_000).map(|line| auction(line).run(UnixMicros(5), 1_000)).collect()
    }

    #[test]
    fn a_bid_is_charged_at_most_once_and_never_above_its_price() {
        for rule in [Rule::SecondOnBill, Rule::FirstOnWin] {
            for outcome in runs(rule) {
                let charges: Vec<_> = outcome.notices.iter().filter(|n| n.charges).collect();
                assert!(charges.len() <= usize::from(outcome.won));
                assert!(charges.iter().all(|n| (100..=1_000).contains(&n.price_nanos)));
                assert!(outcome.notices.iter().all(|n| n.at.0 > 5 && n.at.0 % ROUND == 0 && n.at.0 < LATEST_HOURS * 3_600_000_000));
            }
        }
    }

    #[test]
    fn wins_losses_repetitions_and_wins_told_late_all_occur() {
        let runs = runs(Rule::SecondOnBill);
        let share = |what: &dyn Fn(&Outcome) -> bool| runs.iter().filter(|o| what(o)).count() as f64 / 4_000.0;
        assert!((0.4..0.7).contains(&share(&|o| o.won)));
        assert!((0.005..0.03).contains(&share(&|o| o.won && o.notices.iter().any(|n| n.kind == Kind::Loss))));
        assert!((0.01..0.04).contains(&share(&|o| o.notices.len() == 3)));
        assert!((0.01..0.05).contains(&share(&|o| o.won && o.notices[0].kind == Kind::Bill)));
    }
}
