//! What of an opportunity a decision records, so that any policy can be held against it afterwards; bounded, because
//! 256 decisions share a leaf of 64 KiB.

use kiki::leaf;

use crate::domain::opportunity::Opportunity;

/// Categories of one decision, and bytes of each.
const MAX_CATEGORIES: (usize, usize) = (16, 64);
/// Names of one place, and bytes of each: a domain has at most 253.
const MAX_PLACES: (usize, usize) = (4, 255);

/// The country, categories, place and signals of a decision.
pub(super) fn place(opportunity: &Opportunity) -> leaf::Decision {
    let (categories, some_categories) = bounded(&opportunity.categories, MAX_CATEGORIES);
    let (places, some_places) = bounded(&opportunity.places, MAX_PLACES);
    leaf::Decision {
        country: opportunity.country.clone(),
        categories,
        places,
        signals: opportunity.signals,
        abridged: some_categories || some_places,
        ..Default::default()
    }
}

/// What fits of a list, and whether something did not.
fn bounded(list: &[String], (count, bytes): (usize, usize)) -> (Vec<String>, bool) {
    let kept: Vec<String> = list.iter().filter(|entry| entry.len() <= bytes).take(count).cloned().collect();
    let abridged = kept.len() < list.len();
    (kept, abridged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_marked() {
        let opportunity = |categories: usize, place: usize| Opportunity {
            categories: vec!["IAB1".into(); categories],
            places: vec!["x".repeat(place)],
            ..Default::default()
        };
        assert!(!place(&opportunity(16, 255)).abridged);
        let long = place(&opportunity(17, 256));
        assert_eq!((long.abridged, long.categories.len(), long.places.len()), (true, 16, 0));
    }
}
