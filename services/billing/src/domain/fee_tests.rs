#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

/// One of the currency in nanos.
const ONE: i128 = 1_000_000_000;

fn terms(share_ppm: i64, netting: Netting) -> FeeTerms {
    FeeTerms { baseline_ppm: 3_000_000, share_ppm, netting, carry_shortfall: true, minor_places: 2 }
}

fn line(campaign: &str, spend: i128, ltv: i128) -> LineInput {
    LineInput { campaign: campaign.to_owned(), spend_nanos: spend * ONE, ltv_nanos: ltv * ONE }
}

#[test]
fn bills_the_products_own_example() {
    let out = fees(&[line("acme", 36_368, 131_194)], &terms(100_000, Netting::Client), &Carry::default()).unwrap();
    assert_eq!((out.margin_minor, out.fee_minor), (2_209_000, 220_900));
    assert_eq!(out.margin_minor - out.fee_minor, 1_988_100);
    assert_eq!(roas_4dp(36_368 * ONE, 131_194 * ONE), Ok(Some(36_074)));
    assert_eq!(improvement_pct_2dp(36_368 * ONE, 131_194 * ONE, 3_000_000), Ok(Some(2_025)));
    assert_eq!(roi_pct_2dp(2_209_000, 220_900), Ok(Some(90_000)));
}

#[test]
fn bills_fifteen_percent_of_the_readmes_example() {
    let out = fees(&[line("a", 1_000, 4_470)], &terms(150_000, Netting::Client), &Carry::default()).unwrap();
    assert_eq!((out.margin_minor, out.fee_minor), (147_000, 22_050));
}

#[test]
fn below_the_baseline_nothing_is_owed() {
    let out = fees(&[line("a", 1_000, 2_630)], &terms(100_000, Netting::Client), &Carry::default()).unwrap();
    assert_eq!((out.margin_minor, out.shortfall_minor, out.fee_minor), (0, 37_000, 0));
    assert_eq!(out.lines[0].status, LineStatus::BelowBaseline);
    assert_eq!(improvement_pct_2dp(1_000 * ONE, 2_630 * ONE, 3_000_000), Ok(Some(-1_233)));
}

#[test]
fn value_without_spend_is_held_and_left_out_of_the_net() {
    for netting in [Netting::Client, Netting::Campaign] {
        let lines = [line("a", 0, 500), line("b", 100, 250)];
        let out = fees(&lines, &terms(100_000, netting), &Carry::default()).unwrap();
        assert_eq!(out.lines[0].status, LineStatus::HeldForReview);
        assert_eq!(out.lines[0].margin_minor, 50_000);
        assert_eq!((out.fee_minor, out.margin_minor, out.shortfall_minor), (0, 0, 5_000));
    }
    assert_eq!(roas_4dp(0, 500 * ONE), Ok(None));
}

#[test]
fn refunds_without_spend_lower_the_net() {
    let lines = [line("a", 0, -500), line("b", 100, 1_300)];
    let out = fees(&lines, &terms(100_000, Netting::Client), &Carry::default()).unwrap();
    assert_eq!((out.margin_minor, out.fee_minor), (50_000, 5_000));
}

#[test]
fn half_a_cent_rounds_away_from_zero() {
    let half = LineInput { campaign: "a".into(), spend_nanos: 1, ltv_nanos: ONE / 2 + 3 };
    let out = fees(&[half], &terms(50_000, Netting::Client), &Carry::default()).unwrap();
    assert_eq!(out.fee_minor, 3);
    assert_eq!(round_to(-25, 1, 0), Ok(-3));
    assert_eq!(round_to(-24, 1, 0), Ok(-2));
    assert_eq!(round_to(24, 1, 0), Ok(2));
}

#[test]
fn a_losing_campaign_is_set_off_against_the_winning_ones() {
    let lines = [line("a", 100, 400), line("b", 100, 310), line("c", 100, 250)];
    let out = fees(&lines, &terms(100_000, Netting::Client), &Carry::default()).unwrap();
    assert_eq!((out.margin_minor, out.fee_minor), (6_000, 600));
    // 600 in the ratio 100 : 10 is 545.45 and 54.54: the odd unit goes to the larger remainder.
    assert_eq!(out.lines.iter().map(|l| l.fee_minor).collect::<Vec<_>>(), [545, 55, 0]);
    let alone = fees(&lines, &terms(100_000, Netting::Campaign), &Carry::default()).unwrap();
    assert_eq!((alone.margin_minor, alone.shortfall_minor, alone.fee_minor), (11_000, 5_000, 1_100));
}

#[test]
fn a_shortfall_that_is_carried_is_set_off_against_the_next_margin() {
    let netted = terms(100_000, Netting::Client);
    let lost = fees(&[line("a", 100, 250)], &netted, &Carry::default()).unwrap();
    assert_eq!((lost.shortfall_minor, lost.carry.set_off_minor(Netting::Client, 2)), (5_000, Ok(5_000)));
    let won = fees(&[line("a", 100, 420), line("b", 100, 330)], &netted, &lost.carry).unwrap();
    // 120 and 30 less 50: a tenth of 100, in the ratio 12 : 3.
    assert_eq!((won.margin_minor, won.fee_minor, won.carry.total()), (10_000, 1_000, Ok(0)));
    assert_eq!(won.lines.iter().map(|l| l.fee_minor).collect::<Vec<_>>(), [800, 200]);
    let forgotten = fees(&[line("a", 100, 250)], &FeeTerms { carry_shortfall: false, ..netted }, &Carry::default()).unwrap();
    assert_eq!((forgotten.shortfall_minor, forgotten.carry), (5_000, Carry::default()));
}

#[test]
fn a_campaigns_shortfall_is_set_off_against_its_own_margin_alone() {
    let each = terms(100_000, Netting::Campaign);
    let lost = fees(&[line("a", 100, 250), line("b", 100, 310)], &each, &Carry::default()).unwrap();
    assert_eq!((lost.fee_minor, lost.shortfall_minor), (100, 5_000));
    let idle = fees(&[line("b", 100, 310)], &each, &lost.carry).unwrap();
    assert_eq!((idle.fee_minor, &idle.carry), (100, &lost.carry), "who does nothing keeps its shortfall");
    let won = fees(&[line("a", 100, 330), line("b", 100, 310)], &each, &idle.carry).unwrap();
    assert_eq!((won.fee_minor, won.margin_minor, won.shortfall_minor), (100, 1_000, 2_000));
    // Netted per client from now on: what single campaigns are short of is the client's.
    let netted = fees(&[line("b", 100, 340)], &terms(100_000, Netting::Client), &won.carry).unwrap();
    assert_eq!((netted.fee_minor, netted.carry), (200, Carry::default()));
}

#[test]
fn equal_remainders_go_by_campaign_id() {
    let weights = [Weight { weight: 5, key: "b" }, Weight { weight: 5, key: "a" }];
    assert_eq!(allocate(3, &weights).unwrap(), [1, 2]);
    assert_eq!(allocate(3, &[]).unwrap(), Vec::<i128>::new());
}

#[test]
fn figures_beyond_128_bits_are_errors() {
    let huge = LineInput { campaign: "a".into(), spend_nanos: 1, ltv_nanos: i128::MAX / 2 };
    assert_eq!(fees(&[huge], &terms(100_000, Netting::Client), &Carry::default()), Err(FeeError::Overflow { what: "margin" }));
    assert!(matches!(fees(&[], &terms(1_000_001, Netting::Client), &Carry::default()), Err(FeeError::Terms { .. })));
}

fn any_line() -> impl Strategy<Value = (i128, i128)> {
    (0..1_000_000_000_000_000_i128, 0..4_000_000_000_000_000_i128)
}

fn any_lines() -> impl Strategy<Value = Vec<LineInput>> {
    prop::collection::vec(any_line(), 0..12).prop_map(|raw| {
        let named = |(i, (spend_nanos, ltv_nanos))| LineInput { campaign: format!("c{i}"), spend_nanos, ltv_nanos };
        raw.into_iter().enumerate().map(named).collect()
    })
}

fn any_terms() -> impl Strategy<Value = FeeTerms> {
    let netting = prop_oneof![Just(Netting::Client), Just(Netting::Campaign)];
    (0..6_000_000_i64, 0..=SHARE_PPM_MAX, netting, 0..=MINOR_PLACES_MAX).prop_map(|(baseline_ppm, share_ppm, netting, minor_places)| {
        FeeTerms { baseline_ppm, share_ppm, netting, carry_shortfall: true, minor_places }
    })
}

/// The exact net over all counted lines, in 10^-15.
fn net(lines: &[LineInput], terms: &FeeTerms) -> i128 {
    let margins = lines.iter().map(|l| (l, margin_exact(l, terms).unwrap()));
    margins.filter(|(l, m)| status(l, *m) != LineStatus::HeldForReview).map(|(_, m)| m).sum()
}

proptest! {
    #[test]
    fn fees_of_the_lines_sum_to_the_total(lines in any_lines(), terms in any_terms()) {
        let out = fees(&lines, &terms, &Carry::default()).unwrap();
        prop_assert_eq!(out.lines.iter().map(|l| l.fee_minor).sum::<i128>(), out.fee_minor);
        prop_assert!(out.lines.iter().all(|l| l.fee_minor >= 0));
        let billed_below = out.lines.iter().any(|l| l.fee_minor > 0 && l.status != LineStatus::AboveBaseline);
        prop_assert!(!billed_below);
    }

    #[test]
    fn order_of_lines_changes_nothing(
        (lines, shuffled) in any_lines().prop_flat_map(|l| (Just(l.clone()), Just(l).prop_shuffle())),
        terms in any_terms(),
    ) {
        let by_id = |lines: &[LineInput]| {
            let out = fees(lines, &terms, &Carry::default()).unwrap();
            let mut named: Vec<_> = lines.iter().map(|l| l.campaign.clone()).zip(out.lines).collect();
            named.sort_by(|a, b| a.0.cmp(&b.0));
            (named, out.fee_minor, out.margin_minor, out.shortfall_minor)
        };
        prop_assert_eq!(by_id(&lines), by_id(&shuffled));
    }

    #[test]
    fn a_client_who_lost_overall_owes_nothing(lines in any_lines(), terms in any_terms()) {
        let terms = FeeTerms { netting: Netting::Client, ..terms };
        let out = fees(&lines, &terms, &Carry::default()).unwrap();
        if net(&lines, &terms) <= 0 {
            prop_assert_eq!(out.fee_minor, 0);
        }
    }

    #[test]
    fn with_shortfalls_carried_the_fees_are_those_of_one_long_period(raw in prop::collection::vec(any_lines(), 1..6), terms in any_terms()) {
        let terms = FeeTerms { netting: Netting::Client, ..terms };
        let (mut carry, mut margin) = (Carry::default(), 0);
        for lines in &raw {
            let out = fees(lines, &terms, &carry).unwrap();
            let net = net(lines, &terms) - carry.total().unwrap();
            prop_assert_eq!(out.carry.total().unwrap(), (-net).max(0));
            prop_assert!(out.fee_minor == 0 || net > 0);
            margin += net.max(0);
            carry = out.carry;
        }
        // What was above the baseline less what is still short of it is what all lines come to.
        let all: i128 = raw.iter().map(|lines| net(lines, &terms)).sum();
        prop_assert_eq!(margin - carry.total().unwrap(), all);
    }

    #[test]
    fn more_value_never_lowers_a_lines_fee(raw in any_line(), more in 0..1_000_000_000_000_000_i128, terms in any_terms()) {
        let fee = |ltv_nanos| {
            let line = LineInput { campaign: "a".into(), spend_nanos: raw.0, ltv_nanos };
            fees(&[line], &terms, &Carry::default()).unwrap().fee_minor
        };
        if raw.0 > 0 {
            prop_assert!(fee(raw.1) <= fee(raw.1 + more));
        }
    }

    #[test]
    fn total_is_within_half_a_unit_a_line_of_the_exact_fee(lines in any_lines(), terms in any_terms()) {
        let terms = FeeTerms { netting: Netting::Client, ..terms };
        let exact = net(&lines, &terms).max(0) * i128::from(terms.share_ppm);
        let unit = 10_i128.pow(EXACT_FEE_PLACES - terms.minor_places);
        let off = (fees(&lines, &terms, &Carry::default()).unwrap().fee_minor * unit - exact).abs();
        prop_assert!(2 * off <= unit * (lines.len() as i128).max(1), "off by {off} of {unit}");
    }

    #[test]
    fn allocation_is_within_one_unit_of_proportion(
        total in 0..1_000_000_000_i128,
        raw in prop::collection::vec(1..1_000_000_000_i128, 1..20),
    ) {
        let keys: Vec<String> = (0..raw.len()).map(|i| format!("{i:03}")).collect();
        let weights: Vec<_> = raw.iter().zip(&keys).map(|(&weight, key)| Weight { weight, key }).collect();
        let parts = allocate(total, &weights).unwrap();
        prop_assert_eq!(parts.iter().sum::<i128>(), total);
        let whole: i128 = raw.iter().sum();
        for (part, weight) in parts.iter().zip(&raw) {
            prop_assert!((part * whole - total * weight).abs() < whole);
        }
    }
}
