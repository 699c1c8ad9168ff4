//! The notices that follow a bid, with the faults of the field: which go out, when, and what they say.
//!
//! A function of the faults and of what is drawn for the bid, and of nothing else: not of when answers come.
//!
//! The notice that money follows is the charging one: the bill, or the win where the exchange charges on it. It has one *first*
//! copy, by whose answer the charge is reckoned as told; a lost notice has no copy at all.

use std::time::Duration;

use clap::ValueEnum;
use kiki::money::decimal;

use crate::random::Draws;
use crate::replay::auction::Kind;

/// OpenRTB loss reasons (list 5.25 of OpenRTB 2.5, AdCOM's Loss Reason Codes): the impression was not shown in time, a bid that
/// is not valid, below the floor, beaten, a blocked seat, advertiser and category.
pub(crate) const EXPIRED: u32 = 2;
pub(crate) const INVALID: u32 = 3;
pub(crate) const BELOW_FLOOR: u32 = 100;
pub(crate) const BEATEN: u32 = 102;
pub(crate) const SEAT_BLOCKED: u32 = 104;
pub(crate) const ADVERTISER_BLOCKED: u32 = 205;
pub(crate) const APP_BLOCKED: u32 = 206;
pub(crate) const CATEGORY_BLOCKED: u32 = 209;

/// Means of the time from an auction to its win or loss notice, from there to the bill, and to a repetition.
const TO_WIN: Duration = Duration::from_millis(20);
const TO_BILL: Duration = Duration::from_millis(300);
const TO_AGAIN: Duration = Duration::from_millis(200);

/// Which notice charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Charge {
    /// The win notice (nurl); there is no other.
    Win,
    /// The billing notice (burl), when the ad was shown.
    Bill,
}

/// How often each fault happens, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, clap::Args)]
pub struct Faults {
    /// Share of notices that come late.
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    pub late: f64,
    /// By how much a late one is late at the most, seconds.
    #[arg(long, default_value_t = 5.0, value_parser = super::seconds)]
    pub late_by: f64,
    /// Share of notices that are sent twice.
    #[arg(long, default_value_t = 0.04, value_parser = share)]
    pub duplicate: f64,
    /// Share of notices that are never sent.
    #[arg(long, default_value_t = 0.01, value_parser = share)]
    pub lost: f64,
    /// Share of billed impressions whose win is told after the bill.
    #[arg(long, default_value_t = 0.05, value_parser = share)]
    pub reordered: f64,
    /// Share of charging notices that name another price than was cleared, from half of it to half above.
    #[arg(long, default_value_t = 0.002, value_parser = share)]
    pub wrong_price: f64,
    /// Share of won impressions that are never shown: they end with a loss notice, and are not charged.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub unshown: f64,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or_else(|| "from 0 to 1".to_owned())
}

/// What became of a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It won, and pays so much (nanos).
    Won(i64),
    /// It did not, for this of OpenRTB's reasons.
    Lost(u32),
}

/// A notice to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Notice {
    pub(crate) kind: Kind,
    /// So long after the auction.
    pub(crate) after: Duration,
    /// The price that it names, nanos.
    pub(crate) price: i64,
    /// OpenRTB's reason; 0 unless it is a loss.
    pub(crate) reason: u32,
    /// The copy that the charge is reckoned by.
    pub(crate) first: bool,
}

/// What an impression costs by the exchange's books.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Charged {
    /// What was cleared, nanos.
    pub(crate) cleared: i64,
    /// What the notice says, nanos.
    pub(crate) told: i64,
    /// No notice says it.
    pub(crate) lost: bool,
}

/// How often each fault was drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Drawn {
    pub(crate) late: u64,
    pub(crate) duplicate: u64,
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
    pub(crate) wrong_price: u64,
    pub(crate) unshown: u64,
}

/// What follows a bid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Course {
    /// In the order in which they were made, which is not that of their times.
    pub(crate) notices: Vec<Notice>,
    pub(crate) charged: Option<Charged>,
    pub(crate) drawn: Drawn,
}

impl Course {
    /// Draws what follows.
    pub(crate) fn of(faults: &Faults, charge: Charge, fate: Fate, draws: &mut Draws) -> Self {
        let mut course = Self::default();
        let win = exponential(draws, TO_WIN);
        match fate {
            Fate::Lost(reason) => course.tell(faults, draws, notice(Kind::Loss, win, 0, reason)),
            Fate::Won(cleared) => course.won(faults, draws, charge, win, cleared),
        }
        course
    }

    fn won(&mut self, faults: &Faults, draws: &mut Draws, charge: Charge, mut win: Duration, cleared: i64) {
        let shown = win + exponential(draws, TO_BILL);
        let wrong = draws.chance(faults.wrong_price);
        let told = if wrong { another(cleared, draws) } else { cleared };
        if charge == Charge::Win {
            self.drawn.wrong_price += u64::from(wrong);
            return self.charge(faults, draws, notice(Kind::Win, win, told, 0), cleared);
        }
        if draws.chance(faults.reordered) {
            self.drawn.reordered += 1;
            win = shown + TO_WIN;
        }
        self.tell(faults, draws, notice(Kind::Win, win, cleared, 0));
        if draws.chance(faults.unshown) {
            self.drawn.unshown += 1;
            self.tell(faults, draws, notice(Kind::Loss, shown, 0, EXPIRED));
        } else {
            self.drawn.wrong_price += u64::from(wrong);
            self.charge(faults, draws, notice(Kind::Bill, shown, told, 0), cleared);
        }
    }

    fn charge(&mut self, faults: &Faults, draws: &mut Draws, notice: Notice, cleared: i64) {
        let before = self.drawn.lost;
        self.tell(faults, draws, Notice { first: true, ..notice });
        self.charged = Some(Charged { cleared, told: notice.price, lost: self.drawn.lost > before });
    }

    /// Sends a notice: not at all, late, twice, or as it should be.
    fn tell(&mut self, faults: &Faults, draws: &mut Draws, mut notice: Notice) {
        let (lost, late, again) = (draws.chance(faults.lost), draws.chance(faults.late), draws.chance(faults.duplicate));
        let (late_by, again_after) = (Duration::from_secs_f64(draws.unit() * faults.late_by), exponential(draws, TO_AGAIN));
        if lost {
            self.drawn.lost += 1;
            return;
        }
        if late {
            self.drawn.late += 1;
            notice.after += late_by;
        }
        self.notices.push(notice);
        if again {
            self.drawn.duplicate += 1;
            self.notices.push(Notice { after: notice.after + again_after, first: false, ..notice });
        }
    }
}

fn notice(kind: Kind, after: Duration, price: i64, reason: u32) -> Notice {
    Notice { kind, after, price, reason, first: false }
}

fn exponential(draws: &mut Draws, mean: Duration) -> Duration {
    Duration::from_secs_f64(draws.exponential(mean.as_secs_f64()))
}

/// A price from half to half above, and not the same.
fn another(price: i64, draws: &mut Draws) -> i64 {
    let other = (price as f64 * (0.5 + draws.unit())) as i64;
    if other == price { price + 1 } else { other }
}

/// What OpenRTB's macros stand for in the addresses of one bid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Macros<'a> {
    pub(crate) auction: &'a str,
    pub(crate) imp: &'a str,
    pub(crate) seat: &'a str,
    pub(crate) bid: &'a str,
    pub(crate) ad: &'a str,
    pub(crate) currency: &'a str,
    /// What was offered, nanos.
    pub(crate) offered: i64,
    /// What it took to win, nanos.
    pub(crate) min_to_win: i64,
}

impl Macros<'_> {
    /// The address with its macros replaced; one that is not known, or says nothing here, is replaced by nothing, as OpenRTB 2.6
    /// asks in 4.4.
    pub(crate) fn fill(&self, template: &str, notice: &Notice) -> String {
        let mut url = String::with_capacity(template.len() + 32);
        let mut rest = template;
        while let Some((before, macro_on)) = rest.split_once("${") {
            url.push_str(before);
            let Some((name, after)) = macro_on.split_once('}') else {
                url.push_str("${");
                rest = macro_on;
                break;
            };
            url.push_str(&self.value(name, notice));
            rest = after;
        }
        url.push_str(rest);
        url
    }

    fn value(&self, name: &str, notice: &Notice) -> String {
        let cpm = |nanos: i64| decimal(i128::from(nanos), 6);
        let lost = notice.kind == Kind::Loss;
        match name {
            "AUCTION_ID" => escaped(self.auction),
            "AUCTION_BID_ID" => escaped(self.bid),
            "AUCTION_IMP_ID" => escaped(self.imp),
            "AUCTION_SEAT_ID" => escaped(self.seat),
            "AUCTION_AD_ID" => escaped(self.ad),
            "AUCTION_CURRENCY" => escaped(self.currency),
            // Who lost is not told what the winner paid.
            "AUCTION_PRICE" if !lost => cpm(notice.price),
            "AUCTION_MBR" if !lost => format!("{:.4}", notice.price as f64 / self.offered.max(1) as f64),
            "AUCTION_LOSS" => notice.reason.to_string(),
            "AUCTION_MIN_TO_WIN" => cpm(self.min_to_win),
            "AUCTION_MULTIPLIER" => "1".to_owned(),
            _ => String::new(),
        }
    }
}

/// Text in a query: what RFC 3986 calls unreserved stays as it is.
fn escaped(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests;
