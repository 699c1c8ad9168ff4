//! On simulated first-price auctions: seeded values and competing prices, with and without word of what it took to win.

#![allow(clippy::unwrap_used)]

use smallvec::smallvec;

use super::*;
use proptest::prelude::*;

const FLOOR: Nanos = Nanos::new(200_000);
const FIFTH: u32 = 200_000;
const ONE: Market = Market::MIN;

fn question(value: i64) -> Question {
    Question { value: Nanos::new(value), least: FLOOR, exploration_ppm: 0, key: [0; 16] }
}

/// What a bidder got of the same auctions.
#[derive(Debug, Default, PartialEq, Eq)]
struct Got {
    wins: u64,
    cost: i64,
    value: i64,
}

impl Got {
    fn surplus(&self) -> i64 {
        self.value - self.cost
    }
}

/// SplitMix64 of a seed and a number.
fn drawn(seed: u64, n: u64) -> u64 {
    let mut z = (seed << 32 | n).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Values of 1 to 5 million nanos against the higher of two competitors of up to 3 million.
fn auctions(seed: u64) -> impl Iterator<Item = (i64, i64, [u8; 16])> {
    (0..20_000).map(move |n| {
        let one = |salt: u64, bound: u64| (drawn(seed * 8 + salt, n) % bound) as i64;
        let other = one(0, 3_000_000).max(one(1, 3_000_000)).max(FLOOR.get());
        let key = [drawn(seed * 8 + 3, n), drawn(seed * 8 + 4, n)].map(u64::to_be_bytes).concat();
        (1_000_000 + one(2, 4_000_000), other, *key.first_chunk().unwrap_or(&[0; 16]))
    })
}

/// Plays them with a bid for each; hears `min_to_win` where it is told.
fn play(seed: u64, told: bool, bid: impl Fn(&Markets, Question) -> Nanos) -> Got {
    let markets = Markets::default();
    let mut got = Got::default();
    for (value, other, key) in auctions(seed) {
        let bid = bid(&markets, Question { key, ..question(value) });
        assert!(bid <= Nanos::new(value) && bid >= FLOOR);
        let won = bid.get() > other;
        if won {
            got = Got { wins: got.wins + 1, cost: got.cost + bid.get(), value: got.value + value };
        }
        let word = if won { Word::Bill(bid) } else { Word::Loss(102) };
        markets.saw(ONE, Seen::of(word, bid, told.then_some(Nanos::new(other + 1))).unwrap_or(Seen::Lost(bid)));
    }
    got
}

/// The best that one who knew the distribution could do: (v - b) (b / 3e6)^2 is greatest at two thirds of the value, or
/// where all is won.
fn oracle(seed: u64) -> Got {
    play(seed, true, |_, question| Nanos::new((question.value.get() * 2 / 3).clamp(FLOOR.get(), 3_000_001).min(question.value.get())))
}

#[test]
fn it_costs_less_than_the_value_for_the_same_wins_and_comes_near_the_best() {
    for seed in 1..=5 {
        let best = oracle(seed).surplus();
        let told = play(seed, true, |markets, question| markets.offer(ONE, &question));
        assert!(told.cost * 10 < told.value * 8, "the wins would have cost their value unshaded: {told:?}");
        assert!(told.surplus() * 100 >= best * 93, "told: {} of {best}", told.surplus());
        let trying = |markets: &Markets, question| markets.offer(ONE, &Question { exploration_ppm: FIFTH, ..question });
        let untold = play(seed, false, trying);
        assert!(untold.cost < untold.value);
        assert!(untold.surplus() * 100 >= best * 75, "untold: {} of {best}", untold.surplus());
        assert_eq!(untold, play(seed, false, trying), "the same again");
        let unshaded = play(seed, true, |_, question| question.value);
        assert_eq!(unshaded.surplus(), 0);
    }
}

#[test]
fn a_market_of_which_little_is_known_is_not_shaded() {
    let markets = Markets::default();
    let to_win = Seen::ToWin(Nanos::new(500_000));
    for _ in 0..50 {
        assert_eq!(markets.offer(ONE, &question(2_000_000)).get(), 2_000_000);
        markets.saw(ONE, to_win);
    }
    markets.saw(ONE, to_win);
    let offer = markets.offer(ONE, &question(2_000_000)).get();
    assert!((500_000..600_000).contains(&offer), "{offer}");
    assert_eq!(markets.offer(Market::MAX, &question(2_000_000)).get(), 2_000_000, "another market");
    assert_eq!(markets.offer(ONE, &question(400_000)).get(), 400_000, "nothing below wins");
}

#[test]
fn it_follows_a_market_that_changes() {
    let markets = Markets::default();
    (0..5_000).for_each(|_| markets.saw(ONE, Seen::ToWin(Nanos::new(400_000))));
    (0..5_000).for_each(|_| markets.saw(ONE, Seen::ToWin(Nanos::new(1_500_000))));
    let offer = markets.offer(ONE, &question(4_000_000)).get();
    assert!((1_500_000..1_750_000).contains(&offer), "{offer}");
}

#[test]
fn what_a_notice_says() {
    let (bid, min) = (Nanos::new(9), Some(Nanos::new(5)));
    assert_eq!(Seen::of(Word::Bill(bid), bid, min), Some(Seen::ToWin(Nanos::new(5))));
    assert_eq!(Seen::of(Word::Loss(1), bid, min), Some(Seen::ToWin(Nanos::new(5))));
    assert_eq!(Seen::of(Word::Win(bid), bid, Some(Nanos::ZERO)), Some(Seen::Won(bid)));
    assert_eq!(Seen::of(Word::Loss(102), bid, None), Some(Seen::Lost(bid)));
    assert_eq!(Seen::of(Word::Loss(1), bid, None), None, "an internal error says nothing of prices");
}

#[test]
fn a_first_price_auction_alone_has_a_market_and_what_differs_has_another() {
    let first = Opportunity { first_price: true, exchange: "x1", floor: FLOOR, ..Default::default() };
    let market = |opportunity: &Opportunity<'_>| market(opportunity, Currency::USD);
    assert_eq!(market(&Opportunity { first_price: false, ..first.clone() }), None);
    assert_eq!(market(&first), market(&Opportunity { key: [1; 16], ..first.clone() }));
    let others = [
        Opportunity { exchange: "x2", ..first.clone() },
        Opportunity { placement: "top", ..first.clone() },
        Opportunity { places: smallvec!["news.example"], ..first.clone() },
        Opportunity { floor: Nanos::new(2 * FLOOR.get()), ..first.clone() },
        Opportunity { shapes: smallvec![Shape::Banner(smallvec![])], ..first.clone() },
    ];
    assert_ne!(super::market(&first, Currency::parse("EUR").unwrap()), market(&first));
    assert!(others.iter().all(|other| market(other).is_some() && market(other) != market(&first)));
}

#[test]
fn forgets_the_oldest_market_beyond_its_bound() {
    let markets = Markets::default();
    (1..=MAX_MARKETS as u64 + 1).filter_map(Market::new).for_each(|market| markets.saw(market, Seen::Lost(FLOOR)));
    let inner = markets.inner.lock();
    assert_eq!((inner.curves.len(), inner.order.len()), (MAX_MARKETS, MAX_MARKETS));
    assert!(!inner.curves.contains_key(&ONE));
}

proptest! {
    #[test]
    fn levels_and_prices_agree(nanos in 1_024..(1_i64 << 41)) {
        let nanos = Nanos::new(nanos);
        prop_assert!(price(level(nanos)) <= nanos && price(reached(nanos)) >= nanos);
        prop_assert_eq!(level(price(level(nanos))), level(nanos));
    }

    #[test]
    fn never_above_the_value_nor_below_the_floor(
        seen in prop::collection::vec((0..3_u8, 1..10_000_000_i64), 0..300),
        value in 0..i64::MAX, least in 0..20_000_000_i64, exploration_ppm in 0..=1_000_000_u32, key: [u8; 16],
    ) {
        let markets = Markets::default();
        for (kind, price) in seen {
            let price = Nanos::new(price);
            markets.saw(ONE, [Seen::ToWin(price), Seen::Won(price), Seen::Lost(price)][usize::from(kind)]);
        }
        let (value, least) = (Nanos::new(value), Nanos::new(least));
        let offer = markets.offer(ONE, &Question { value, least, exploration_ppm, key });
        prop_assert!(offer <= value && (offer >= least || offer == value));
    }
}
