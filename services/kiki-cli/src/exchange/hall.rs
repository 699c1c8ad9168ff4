//! Where the auctions of one answer are held, and what follows each of its bids.

use std::time::Instant;

use kiki::clock::monotonic;

use super::answer::{Answer, Bid, Fault};
use super::auction::{Rule, clear, to_beat};
use super::drive::Exchange;
use super::notice::{BEATEN, BELOW_FLOOR, Charged, Course, Drawn, Fate, Macros, Notice};
use super::post::Due;
use super::request::{Facts, Imp};
use super::tally::Tally;
use crate::random::Draws;
use crate::replay::auction::Kind;

/// What came of the bids of an answer.
#[derive(Debug, Default)]
pub(crate) struct Auctions {
    currency: String,
    bids: u64,
    pub(crate) invalid: Vec<Fault>,
    /// What was cleared of those that won.
    won: Vec<i64>,
    charged: Vec<Charged>,
    drawn: Drawn,
    /// What goes to the post.
    pub(crate) notices: Vec<Due>,
}

impl Auctions {
    pub(crate) fn add_to(self, tally: &mut Tally) {
        tally.with_bids += u64::from(self.bids > 0);
        tally.bids += self.bids;
        tally.wins += self.won.len() as u64;
        tally.drawn.add(&self.drawn);
        for fault in self.invalid {
            *tally.invalid.entry(fault.as_str()).or_default() += 1;
        }
        let money = tally.money(&self.currency);
        self.won.iter().for_each(|cleared| money.won.add(*cleared));
        self.charged.iter().for_each(|charged| money.charge(charged));
    }
}

/// One answer's auctions.
#[derive(Debug)]
pub(crate) struct Hall<'a> {
    exchange: &'a Exchange,
    id: &'a str,
    facts: &'a Facts,
    answer: &'a Answer,
    now: Instant,
    done: Auctions,
}

impl<'a> Hall<'a> {
    pub(crate) fn new(exchange: &'a Exchange, id: &'a str, facts: &'a Facts, answer: &'a Answer) -> Self {
        let done = Auctions { currency: answer.cur.clone(), ..Auctions::default() };
        Self { exchange, id, facts, answer, now: monotonic(), done }
    }

    /// Holds the auction of each impression that there is a bid for. `number` is the request's, by which everything is drawn.
    pub(crate) fn hold(mut self, number: u64) -> Auctions {
        let draws = |of: &str, place: usize| Draws::of(self.exchange.market.seed, of, &[number, place as u64]);
        let mut valid: Vec<(&Imp, &Bid, i64)> = Vec::with_capacity(self.answer.bids.len());
        for (place, bid) in self.answer.bids.iter().enumerate() {
            match bid.check(&self.answer.cur, self.facts) {
                Ok((imp, price)) => valid.push((imp, bid, price)),
                Err(fault) => {
                    self.done.invalid.push(fault);
                    self.follow(bid, Fate::Lost(fault.loss()), 0, &mut draws("invalid", place));
                }
            }
        }
        for (place, imp) in self.facts.imps.iter().enumerate() {
            let bids: Vec<(&Bid, i64)> =
                valid.iter().filter(|(of, ..)| std::ptr::eq(*of, imp)).map(|(_, bid, price)| (*bid, *price)).collect();
            if !bids.is_empty() {
                self.auction(imp, &bids, &mut draws("auction", place));
            }
        }
        self.done
    }

    fn auction(&mut self, imp: &Imp, bids: &[(&Bid, i64)], draws: &mut Draws) {
        let floor = if imp.floor_cur == self.answer.cur { imp.floor } else { 0 };
        let others = self.exchange.market.offers(imp.typical, draws);
        let offers: Vec<i64> = bids.iter().map(|(_, price)| *price).chain(others).collect();
        let rule = if self.facts.first_price { Rule::First } else { Rule::Second };
        let cleared = clear(rule, floor, &offers, draws.below(usize::MAX));
        self.done.bids += bids.len() as u64;
        for (at, (bid, _)) in bids.iter().enumerate() {
            let fate = match cleared {
                Some(cleared) if cleared.winner == at => Fate::Won(cleared.price),
                Some(_) => Fate::Lost(BEATEN),
                None => Fate::Lost(BELOW_FLOOR),
            };
            if let Fate::Won(price) = fate {
                self.done.won.push(price);
            }
            self.follow(bid, fate, to_beat(floor, &offers, at), draws);
        }
    }

    /// Addresses the notices. A bidder that gave no address is not told: a charge without one is lost.
    fn follow(&mut self, bid: &Bid, fate: Fate, min_to_win: i64, draws: &mut Draws) {
        let course = Course::of(&self.exchange.faults, self.exchange.charge, fate, draws);
        let (currency, offered) = (&*self.answer.cur, bid.price.unwrap_or(0));
        let macros = Macros { auction: self.id, imp: &bid.imp, seat: &bid.seat, bid: &bid.id, ad: &bid.ad, currency, offered, min_to_win };
        self.done.drawn.add(&course.drawn);
        let mut charged = course.charged;
        for notice in &course.notices {
            let template = template(bid, notice);
            if template.is_empty() {
                charged = charged.map(|charged| Charged { lost: charged.lost || notice.first, ..charged });
                continue;
            }
            let charge = course.charged.filter(|_| notice.first).map(|charged| (currency.to_owned(), charged));
            let url = macros.fill(template, notice);
            self.done.notices.push(Due { at: self.now + notice.after, kind: notice.kind, url, charge });
        }
        self.done.charged.extend(charged);
    }
}

fn template<'a>(bid: &'a Bid, notice: &Notice) -> &'a str {
    match notice.kind {
        Kind::Win => &bid.nurl,
        Kind::Bill => &bid.burl,
        Kind::Loss => &bid.lurl,
    }
}
