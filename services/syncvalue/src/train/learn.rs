//! The loss, and how it is made small: AdamW over shuffled batches, a running mean of the parameters, early stopping.

use super::data::{History, Label};
use super::gradient::{Backward, Forward, Tape, Turned};
use super::random::Random;
use crate::domain::model::heads::{self, Heads};
use crate::domain::model::kernel::Vectors;
use crate::domain::model::network::{GATES, HIDDEN, INPUTS, Layout, OUTPUTS};
use crate::domain::model::{Member, offset};

/// What a network is.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Kind {
    /// Weeks that the layers look back, from the lowest up; with none above 0 the network reads the last week alone.
    pub dilations: Vec<usize>,
    /// See [`offset`].
    pub own: f32,
}

/// How a model is trained.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Settings {
    /// The networks: each learns without its part of the customers.
    pub members: Vec<Kind>,
    /// Steps of a training that is not stopped early, at most.
    pub steps: usize,
    /// Customers whose gradients make one step.
    pub batch: usize,
    /// The largest step.
    pub rate: f32,
    /// What a step takes from the parameters, of the rate.
    pub decay: f32,
    /// How often it looks whether it got better.
    pub checks: usize,
    /// Checks without a better one until it stops.
    pub patience: usize,
}

/// Customers whose gradients are summed together, whoever does it: so that the sum depends on no thread.
const CHUNK: usize = 16;
/// AdamW's (Loshchilov and Hutter 2019): the fading of mean and square.
const BETAS: (f32, f32) = (0.9, 0.98);
/// The steepest slope of one label that is believed.
const MAX_SLOPE: f32 = 1_000.0;
/// The longest gradient that is believed.
const MAX_NORM: f32 = 5.0;
/// What the running mean of the parameters keeps in a step.
const KEEP: f32 = 0.995;

/// Parameters to begin with: states start as in any GRU, and the heads at nothing, so that the first answer is the estimate's.
#[must_use]
pub fn begin(layout: &Layout, seed: u64) -> Vec<f32> {
    let (mut p, mut random) = (vec![0.0; layout.len], Random(seed));
    let mut fill = |at: usize, many: usize, fan: usize| {
        let scale = (1.0 / fan as f32).sqrt();
        p[at..at + many].iter_mut().for_each(|p| *p = random.uniform() * scale);
    };
    fill(layout.embed, INPUTS * HIDDEN, INPUTS);
    for layer in &layout.layers {
        fill(layer.input, HIDDEN * GATES, HIDDEN);
        fill(layer.state, HIDDEN * GATES, HIDDEN);
    }
    for layer in &layout.layers {
        p[layer.gain..layer.gain + HIDDEN].fill(1.0);
        p[layer.input_bias + HIDDEN..layer.input_bias + 2 * HIDDEN].fill(1.0); // remembers, at first
    }
    p[layout.gain..layout.gain + HIDDEN].fill(1.0);
    p
}

/// What a label's outputs cost, and the slopes.
///
/// - Mean: Tweedie deviance of power 1.5 (compound Poisson-gamma), log link, on the estimate's mean.
/// - Chance: cross entropy, on the estimate's log-odds.
/// - What those who buy spend: log-normal likelihood (ZILN, Wang et al. 2019), on the estimate's mean of a buyer.
/// - Days: Poisson likelihood, on the estimate's number.
#[must_use]
pub fn loss(out: &[f32; OUTPUTS], label: &Label, own: f32) -> (f32, [f32; OUTPUTS]) {
    let h = Heads::of(out, &offset(&label.expected, &label.typical, own));
    let (root, y) = (h.mean.sqrt(), label.spend);
    let bought = if label.count > 0.0 && y > 0.0 { 1.0 } else { 0.0 };
    let mut slopes = [0.0; OUTPUTS];
    let tweedie = 2.0 * (root + y / root);
    slopes[heads::MEAN] = root - y / root;
    let cross = -(bought * h.active.max(1e-7).ln() + (1.0 - bought) * (1.0 - h.active).max(1e-7).ln());
    slopes[heads::ACTIVE] = h.active - bought;
    let mut normal = 0.0;
    if bought > 0.0 {
        let off = (y.ln() - h.location) / h.scale;
        normal = 0.5 * off * off + h.scale.ln();
        slopes[heads::LOCATION] = -0.5 * off / h.scale;
        slopes[heads::SCALE] = 0.5 * (1.0 - off * off) * (h.scale - 0.05) / h.scale;
    }
    let poisson = h.count - label.count * h.count.ln();
    slopes[heads::COUNT] = h.count - label.count;
    let w = label.weight;
    (w * (tweedie + cross + 0.5 * normal + poisson), slopes.map(|s| w * s.clamp(-MAX_SLOPE, MAX_SLOPE)))
}

/// A trained network.
#[derive(Debug, Clone, PartialEq)]
pub struct Learned {
    /// The network.
    pub member: Member,
    /// The loss of those who were held out, at each check.
    pub held_out: Vec<f32>,
    /// The best of the checks.
    pub best: usize,
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Checks that were made, of at most [`Settings::checks`].
    pub checks: usize,
    /// The mean loss of the steps since the check before.
    pub loss: f32,
    /// The loss of those who were held out.
    pub held_out: f32,
}

/// Trains until those who are held out are not predicted better any more. The same everywhere for the same processor's instructions, data,
/// settings and seed, however many threads there are.
pub fn learn(
    (fit, held_out): (&[&History], &[&History]),
    kind: &Kind,
    settings: &Settings,
    seed: u64,
    mut told: impl FnMut(Progress),
) -> Learned {
    let (layout, own) = (Layout::new(&kind.dilations), kind.own);
    let mut random = Random(seed ^ 0x5EED);
    let p = begin(&layout, seed);
    let mut adam = Adam { mean: vec![0.0; layout.len], square: vec![0.0; layout.len], kept: p.clone(), p, step: 0 };
    let member = Member { layout: layout.clone(), own, parameters: adam.p.clone() };
    let mut learned = Learned { member, held_out: Vec::new(), best: 0 };
    let mut order: Vec<usize> = (0..fit.len()).filter(|i| !fit[*i].labels.is_empty()).collect();
    if order.is_empty() {
        return learned;
    }
    let (mut least, mut sum, every) = (f32::INFINITY, 0.0, settings.steps.div_ceil(settings.checks).max(1));
    let mut at = order.len();
    for step in 1..=settings.steps {
        if at + settings.batch > order.len() {
            random.shuffle(&mut order);
            at = 0;
        }
        let batch = &order[at..(at + settings.batch).min(order.len())];
        at += settings.batch;
        let (loss, gradient) = batch_gradient(&adam.p, &layout, own, fit, batch);
        adam.step(&gradient, settings.rate * pace(step, settings.steps), settings.decay);
        sum += loss;
        if step % every != 0 {
            continue;
        }
        let checked = mean_loss(&adam.kept, &layout, own, held_out);
        learned.held_out.push(checked);
        let checks = learned.held_out.len();
        told(Progress { checks, loss: std::mem::take(&mut sum) / every as f32, held_out: checked });
        if checked < least {
            (least, learned.best) = (checked, checks - 1);
            learned.member.parameters.clone_from(&adam.kept);
        } else if checks > learned.best + settings.patience {
            break;
        }
    }
    learned
}

/// AdamW (Loshchilov and Hutter 2019), and the running mean of the parameters.
struct Adam {
    p: Vec<f32>,
    kept: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    step: i32,
}

impl Adam {
    fn step(&mut self, gradient: &[f32], rate: f32, decay: f32) {
        self.step += 1;
        let step = self.step as f32;
        let bias = (1.0 - BETAS.0.powi(self.step), 1.0 - BETAS.1.powi(self.step));
        let norm = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let clip = (MAX_NORM / norm.max(1e-12)).min(1.0);
        // At first the mean is of few.
        let take = 1.0 - KEEP.min((1.0 + step) / (10.0 + step));
        for (i, g) in gradient.iter().enumerate() {
            let g = g * clip;
            self.mean[i] = BETAS.0 * self.mean[i] + (1.0 - BETAS.0) * g;
            self.square[i] = BETAS.1 * self.square[i] + (1.0 - BETAS.1) * g * g;
            let ahead = (self.mean[i] / bias.0) / ((self.square[i] / bias.1).sqrt() + 1e-8);
            self.p[i] -= rate * (ahead + decay * self.p[i]);
            self.kept[i] += take * (self.p[i] - self.kept[i]);
        }
    }
}

/// A tenth of the steps up, then down as a cosine to a twentieth.
fn pace(step: usize, steps: usize) -> f32 {
    let (step, steps) = (step as f32, steps as f32);
    let up = steps / 10.0;
    if step < up { step / up } else { 0.05 + 0.475 * (1.0 + (std::f32::consts::PI * (step - up) / (steps - up)).cos()) }
}

/// Does `work` for each chunk, on as many threads as there are cores; the results stand in the chunks' order.
fn each_chunk<T: Send>(chunks: &[&[usize]], work: impl Fn(&[usize], &mut Tape) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(chunks.len()).max(1);
    let mut done: Vec<(usize, T)> = std::thread::scope(|scope| {
        let work = &work;
        let run = |first: usize| {
            let mut tape = Tape::default();
            (first..chunks.len()).step_by(threads).map(|i| (i, work(chunks[i], &mut tape))).collect::<Vec<_>>()
        };
        let others: Vec<_> = (1..threads).map(|first| scope.spawn(move || run(first))).collect();
        let mut done = run(0);
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, result)| result).collect()
}

fn batch_gradient(p: &[f32], layout: &Layout, own: f32, fit: &[&History], batch: &[usize]) -> (f32, Vec<f32>) {
    let (turned, vectors) = (Turned::of(p, layout), Vectors::here());
    let chunks: Vec<&[usize]> = batch.chunks(CHUNK).collect();
    let scale = 1.0 / batch.len() as f32;
    let sums = each_chunk(&chunks, |chunk, tape| {
        let (mut gradient, mut sum) = (vec![0.0; layout.len], 0.0);
        for i in chunk {
            let History { inputs, labels, .. } = fit[*i];
            let inputs = &inputs[..=labels.last().map_or(0, |label| label.step)];
            vectors.run(Forward { p, layout, inputs, tape });
            let mut slopes = vec![[0.0; OUTPUTS]; inputs.len()];
            for label in labels {
                let (loss, slope) = loss(&tape.out[label.step], label, own);
                sum += loss * scale;
                slopes[label.step] = slope.map(|s| s * scale);
            }
            vectors.run(Backward { p, turned: &turned, layout, inputs, tape, slopes: &slopes, gradient: &mut gradient });
        }
        (sum, gradient)
    });
    let (mut loss, mut gradient) = (0.0, vec![0.0; layout.len]);
    for (part, of) in sums {
        loss += part;
        gradient.iter_mut().zip(of).for_each(|(sum, g)| *sum += g);
    }
    (loss, gradient)
}

/// The mean loss of all labels, by their weights.
fn mean_loss(p: &[f32], layout: &Layout, own: f32, of: &[&History]) -> f32 {
    let vectors = Vectors::here();
    let all: Vec<usize> = (0..of.len()).filter(|i| !of[*i].labels.is_empty()).collect();
    let chunks: Vec<&[usize]> = all.chunks(CHUNK).collect();
    let sums = each_chunk(&chunks, |chunk, tape| {
        let mut sums = (0.0, 0.0);
        for History { inputs, labels, .. } in chunk.iter().map(|i| of[*i]) {
            let inputs = &inputs[..=labels.last().map_or(0, |label| label.step)];
            vectors.run(Forward { p, layout, inputs, tape });
            for label in labels {
                sums.0 += f64::from(loss(&tape.out[label.step], label, own).0);
                sums.1 += f64::from(label.weight);
            }
        }
        sums
    });
    let (loss, weight) = sums.into_iter().fold((0.0, 0.0), |(loss, weight), of| (loss + of.0, weight + of.1));
    if weight > 0.0 { (loss / weight) as f32 } else { 0.0 }
}

/// What comes out behind the last of each customer's weeks.
#[must_use]
pub fn run(p: &[f32], layout: &Layout, of: &[&[[f32; INPUTS]]]) -> Vec<[f32; OUTPUTS]> {
    each_history(p, layout, of, |_, outs| outs.last().copied().unwrap_or_default())
}

/// What comes out behind the week of each of a customer's labels.
#[must_use]
pub fn run_to_labels(p: &[f32], layout: &Layout, of: &[&History]) -> Vec<Vec<[f32; OUTPUTS]>> {
    let inputs: Vec<_> = of.iter().map(|history| &*history.inputs).collect();
    each_history(p, layout, &inputs, |i, outs| of[i].labels.iter().map(|label| outs[label.step]).collect())
}

/// `read` of each customer's outputs, week by week.
fn each_history<T: Send>(
    p: &[f32],
    layout: &Layout,
    of: &[&[[f32; INPUTS]]],
    read: impl Fn(usize, &[[f32; OUTPUTS]]) -> T + Sync,
) -> Vec<T> {
    let vectors = Vectors::here();
    let all: Vec<usize> = (0..of.len()).collect();
    let chunks: Vec<&[usize]> = all.chunks(CHUNK).collect();
    let outs = each_chunk(&chunks, |chunk, tape| {
        let out = |i: &usize| {
            vectors.run(Forward { p, layout, inputs: of[*i], tape });
            read(*i, &tape.out)
        };
        chunk.iter().map(out).collect::<Vec<_>>()
    });
    outs.into_iter().flatten().collect()
}
