//! The kernel, timed: what `benches/kernel.rs` and the one beside the frameworks print.

use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use kiki::clock::monotonic;
use syncvalue::domain::model::Member;
use syncvalue::domain::model::kernel::Vectors;
use syncvalue::domain::model::network::{GATES, HIDDEN, INPUTS, Layout, OUTPUTS};
use syncvalue::domain::model::serve::{self, Advance, Open, Peek, Replay};
use syncvalue::train::random::Random;

/// Weeks of a history.
pub(crate) const WEEKS: usize = 32;
/// Customers of a batch.
pub(crate) const BATCH: usize = 64;
/// The layers.
pub(crate) const DILATIONS: [usize; 4] = [1, 2, 4, 8];
/// A sample takes this at least: short, so that most of them have the core to themselves.
const SAMPLE: Duration = Duration::from_micros(200);
/// Samples are taken for so long, and so many at least.
const ALL: Duration = Duration::from_millis(600);
const SAMPLES: usize = 15;

/// Microseconds of one run: the median of many samples.
pub(crate) fn median(mut work: impl FnMut()) -> f64 {
    let mut sample = |runs: u32| {
        let start = monotonic();
        for _ in 0..runs {
            work();
        }
        monotonic() - start
    };
    let mut runs = 1;
    while sample(runs) < SAMPLE {
        runs *= 2;
    }
    let (mut samples, mut taken) = (Vec::new(), Duration::ZERO);
    while taken < ALL || samples.len() < SAMPLES {
        let sample = sample(runs);
        taken += sample;
        samples.push(sample.as_secs_f64() * 1e6 / f64::from(runs));
    }
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// A line: what, microseconds, and what is to be said of them.
pub(crate) fn print(what: &str, micros: f64, more: &str) {
    drop(writeln!(std::io::stdout(), "{what:44} {micros:10.3} us  {more}"));
}

/// A network of random weights, and histories.
pub(crate) struct Setup {
    /// The network.
    pub(crate) member: Member,
    /// [`BATCH`] histories of [`WEEKS`] weeks.
    pub(crate) histories: Vec<Vec<[f32; INPUTS]>>,
}

impl Setup {
    /// The same each time.
    pub(crate) fn new() -> Self {
        let mut random = Random(7);
        let layout = Layout::new(&DILATIONS);
        let parameters = (0..layout.len).map(|_| 0.3 * random.uniform()).collect();
        let mut history = || (0..WEEKS).map(|_| std::array::from_fn(|_| 2.0 * random.uniform())).collect();
        let histories = (0..BATCH).map(|_| history()).collect();
        Self { member: Member { layout, own: 1.0, parameters }, histories }
    }
}

/// Multiplications with an addition of a step with all heads.
fn step_products() -> f64 {
    (INPUTS * HIDDEN + DILATIONS.len() * 2 * HIDDEN * GATES + (HIDDEN + INPUTS) * OUTPUTS) as f64
}

/// Those of a replay that no exact answer can do without: a layer's weeks are those of the layer above and every `dilation` weeks before them.
fn replay_products() -> f64 {
    let mut wanted = [false; WEEKS];
    wanted[WEEKS - 1] = true;
    let mut products = ((HIDDEN + INPUTS) * OUTPUTS) as f64;
    for dilation in DILATIONS.iter().rev() {
        for week in (0..WEEKS).rev() {
            if let (true, Some(before)) = (wanted[week], week.checked_sub(*dilation)) {
                wanted[before] = true;
            }
        }
        let weeks = wanted.iter().filter(|wanted| **wanted).count();
        let with_before = wanted.iter().skip(*dilation).filter(|wanted| **wanted).count();
        products += ((weeks + with_before) * HIDDEN * GATES) as f64;
    }
    products + (wanted.iter().filter(|wanted| **wanted).count() * INPUTS * HIDDEN) as f64
}

/// Our medians, microseconds: of a step with all heads, a replay, and a replay of a batch.
pub(crate) struct Ours {
    /// Of one step with all heads.
    pub(crate) step: f64,
    /// Of one replay.
    pub(crate) replay: f64,
    /// Of each replay of a batch.
    pub(crate) each: f64,
}

/// Times the kernel with some vectors and prints it. `limit`: products in a microsecond that the processor can do with AVX2.
pub(crate) fn time(setup: &Setup, vectors: Vectors, name: &str, limit: Option<f64>) -> Ours {
    let Setup { member, histories } = setup;
    let mut state = vec![0.0; serve::state_len(&member.layout)];
    let steps = serve::restore(member, &histories[0], &mut state);
    let inputs = &histories[1][0];
    let histories: Vec<&[[f32; INPUTS]]> = histories.iter().map(Vec::as_slice).collect();
    let mut outs = [[0.0; OUTPUTS]; BATCH];
    let share = |micros: f64, products: f64| {
        limit.map_or(String::new(), |limit| format!("{:4.0} % of the limit", 100.0 * products / micros / limit))
    };

    let open = [Open { steps, state: &state, inputs }; BATCH];
    let step = median(|| vectors.run(Peek { member, customers: black_box(&open[..1]), outs: black_box(&mut outs[..1]) }));
    print(&format!("{name}: a step with all heads"), step, &share(step, step_products()));
    let each = median(|| vectors.run(Peek { member, customers: black_box(&open), outs: black_box(&mut outs) })) / BATCH as f64;
    print(&format!("{name}: a step with all heads, each of {BATCH}"), each, &share(each, step_products()));
    let mut kept = state.clone();
    let advance = median(|| vectors.run(Advance { member, steps, state: black_box(&mut kept), inputs: black_box(inputs) }));
    print(&format!("{name}: a week into the state"), advance, "");
    let replay = median(|| vectors.run(Replay { member, histories: black_box(&histories[..1]), outs: black_box(&mut outs[..1]) }));
    print(&format!("{name}: a replay of {WEEKS} weeks"), replay, &share(replay, replay_products()));
    let each = median(|| vectors.run(Replay { member, histories: black_box(&histories), outs: black_box(&mut outs) })) / BATCH as f64;
    let second = format!("{}, {:.0} a second on one core", share(each, replay_products()), 1e6 / each);
    print(&format!("{name}: a replay, each of {BATCH}"), each, &second);
    Ours { step, replay, each }
}

/// Products in a microsecond that the processor can do with AVX2: twelve sums that do not wait for each other, in registers.
#[cfg(target_arch = "x86_64")]
pub(crate) fn limit() -> Option<f64> {
    struct Fma(pulp::x86::V3);
    impl pulp::NullaryFnOnce for Fma {
        type Output = f32;

        #[inline(always)]
        fn call(self) -> f32 {
            let v3 = self.0;
            let (a, b) = (v3.splat_f32x8(black_box(0.5)), v3.splat_f32x8(black_box(0.25)));
            let mut sums = [v3.splat_f32x8(0.0); 12];
            for _ in 0..1_000 {
                for sum in &mut sums {
                    *sum = v3.mul_add_f32x8(a, *sum, b);
                }
            }
            sums.iter().map(|sum| sum.0).sum()
        }
    }
    let v3 = pulp::x86::V3::try_new()?;
    let micros = median(|| {
        black_box(v3.vectorize(Fma(v3)));
    });
    Some(12_000.0 * 8.0 / micros)
}

/// Not known elsewhere.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn limit() -> Option<f64> {
    None
}

/// Everything of ours: with the processor's vectors, and with those that every processor of the target has.
pub(crate) fn all(setup: &Setup) -> Ours {
    let limit = limit();
    if let Some(limit) = limit {
        drop(writeln!(std::io::stdout(), "limit: {:.1} billion fused products of 32-bit floats a second (AVX2, one core)", limit / 1e3));
    }
    let ours = time(setup, Vectors::here(), "ours", limit);
    let base = time(setup, Vectors::Base, "ours, base", limit);
    let [step, replay, each] = [(base.step, ours.step), (base.replay, ours.replay), (base.each, ours.each)].map(|(base, ours)| base / ours);
    drop(writeln!(std::io::stdout(), "base / ours: step {step:.2}, replay {replay:.2}, each of {BATCH} {each:.2}"));
    ours
}
