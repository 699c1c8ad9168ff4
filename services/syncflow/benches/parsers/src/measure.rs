//! What is measured, and how.

use std::hint::black_box;
use std::time::Instant;

const PASSES: usize = 20;
const RUNS: usize = 9;

pub type Measure = (&'static str, fn(&[u8]) -> bool);

pub const MEASURES: [Measure; 6] = [
    ("serde_json_value", |body| serde_json::from_slice::<serde_json::Value>(body).is_ok()),
    ("sonic_value", |body| sonic_rs::from_slice::<sonic_rs::Value>(body).is_ok()),
    ("sonic_lazy_value", |body| sonic_rs::from_slice::<sonic_rs::LazyValue>(body).is_ok()),
    ("sonic_two_fields", |body| sonic_rs::get_many(body, &fields()).is_ok()),
    ("simd_json_value", |body| simd_json::to_borrowed_value(&mut body.to_vec()).is_ok()),
    ("simd_json_tape", |body| simd_json::to_tape(&mut body.to_vec()).is_ok()),
];

fn fields() -> sonic_rs::PointerTree {
    let mut tree = sonic_rs::PointerTree::new();
    tree.add_path(["id"].iter());
    tree.add_path(["imp"].iter());
    tree
}

/// How many of the requests it takes.
#[inline(never)]
pub fn one_pass(requests: &[Vec<u8>], measure: fn(&[u8]) -> bool) -> usize {
    requests.iter().filter(|body| measure(black_box(body))).count()
}

/// Nanoseconds a request in the fastest run: others had company.
pub fn fastest_ns(requests: &[Vec<u8>], measure: fn(&[u8]) -> bool) -> f64 {
    let run = |_| {
        let start = Instant::now();
        for _ in 0..PASSES {
            black_box(one_pass(requests, measure));
        }
        start.elapsed().as_nanos() as f64 / (PASSES * requests.len()) as f64
    };
    (0..RUNS).map(run).fold(f64::INFINITY, f64::min)
}
