//! Bounds of amounts: sorted, so that one binary search finds all that a value breaks.

use super::hash::Map;
use super::{Mask, or, set};
use crate::money::Currency;

#[derive(Debug, Clone, Default)]
pub(super) struct Amounts(Map<Currency, Bounds>);

#[derive(Debug, Clone, Default)]
struct Bounds {
    most: Steps,
    least: Steps,
}

/// Bounds in the order in which a value breaks them; `masks[k]` has the rules of the first k.
#[derive(Debug, Clone, Default)]
struct Steps {
    bounds: Vec<(i64, usize)>,
    masks: Vec<Mask>,
}

impl Steps {
    fn index(&mut self, words: usize) {
        let mut mask = vec![0; words].into_boxed_slice();
        self.masks = vec![mask.clone()];
        for (_, rule) in &self.bounds {
            set(&mut mask, *rule);
            self.masks.push(mask.clone());
        }
    }

    fn broken(&self, broken: impl Fn(i64) -> bool) -> Option<&Mask> {
        let count = self.bounds.partition_point(|(bound, _)| broken(*bound));
        if count == 0 { None } else { self.masks.get(count) }
    }
}

impl Amounts {
    /// A rule's bounds; 0 is none.
    pub(super) fn add(&mut self, rule: usize, currency: Currency, least: i64, most: i64) {
        let bounds = self.0.entry(currency).or_default();
        if most > 0 {
            bounds.most.bounds.push((most, rule));
        }
        if least > 0 {
            bounds.least.bounds.push((least, rule));
        }
    }

    /// Once all rules are in.
    pub(super) fn index(&mut self, words: usize) {
        for bounds in self.0.values_mut() {
            bounds.most.bounds.sort_unstable();
            bounds.least.bounds.sort_unstable_by(|one, other| other.cmp(one));
            bounds.most.index(words);
            bounds.least.index(words);
        }
    }

    /// The rules whose highest, and those whose lowest the amount breaks.
    pub(super) fn break_bounds(&self, currency: Currency, amount: i64, high: &mut [u64], low: &mut [u64]) {
        let Some(bounds) = self.0.get(&currency) else { return };
        if let Some(mask) = bounds.most.broken(|most| most < amount) {
            or(high, mask);
        }
        if let Some(mask) = bounds.least.broken(|least| least > amount) {
            or(low, mask);
        }
    }

    /// The rules whose range the amount is outside of.
    pub(super) fn break_either(&self, currency: Currency, amount: i64, hit: &mut [u64]) {
        let Some(bounds) = self.0.get(&currency) else { return };
        if let Some(mask) = bounds.most.broken(|most| most < amount) {
            or(hit, mask);
        }
        if let Some(mask) = bounds.least.broken(|least| least > amount) {
            or(hit, mask);
        }
    }
}
