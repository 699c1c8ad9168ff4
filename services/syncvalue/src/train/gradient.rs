//! The network over a whole history, and the gradient of a loss on what it puts out: back-propagation through time.
//!
//! Written out by hand for this one network; a test holds every tensor's gradient against differences of the loss.

use crate::domain::model::kernel::{Work, add_product, fma};
use crate::domain::model::network::{EPSILON, GATES, Gates, HIDDEN, INPUTS, Layer, Layout, OUTPUTS, fixed, gates, normalised, outputs};

type Units = [f32; HIDDEN];

/// Weights turned round, for the way back.
#[derive(Debug, Clone, Default)]
pub struct Turned {
    /// Of each layer: GATES x HIDDEN, of the input and of the state.
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    /// OUTPUTS x HIDDEN.
    out: Vec<f32>,
}

impl Turned {
    /// Of these parameters.
    #[must_use]
    pub fn of(p: &[f32], layout: &Layout) -> Self {
        let turn = |at: usize, columns: usize| {
            let mut turned = vec![0.0; HIDDEN * columns];
            for row in 0..HIDDEN {
                for column in 0..columns {
                    turned[column * HIDDEN + row] = p[at + row * columns + column];
                }
            }
            turned
        };
        let layers = layout.layers.iter().map(|layer| (turn(layer.input, GATES), turn(layer.state, GATES))).collect();
        Self { layers, out: turn(layout.out, OUTPUTS) }
    }
}

/// What the way forward leaves for the way back; used again for the next history.
#[derive(Debug, Default)]
pub struct Tape {
    /// What comes out, week by week.
    pub out: Vec<[f32; OUTPUTS]>,
    layers: Vec<Passed>,
    top: Vec<Units>,
    grad: Vec<Units>,
    input_grad: Vec<[f32; GATES]>,
    state_grad: Vec<[f32; GATES]>,
}

#[derive(Debug, Default)]
struct Passed {
    x: Vec<Units>,
    u: Vec<Units>,
    gates: Vec<Gates>,
}

/// The way forward: `tape.out` for each week of `inputs`.
pub struct Forward<'a> {
    /// The parameters.
    pub p: &'a [f32],
    /// Where they stand.
    pub layout: &'a Layout,
    /// The weeks.
    pub inputs: &'a [[f32; INPUTS]],
    /// What is kept.
    pub tape: &'a mut Tape,
}

impl Work for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { p, layout, inputs, tape } = self;
        tape.layers.resize_with(layout.layers.len(), Passed::default);
        tape.top.clear();
        for week in inputs {
            let mut x = *fixed::<HIDDEN>(p, layout.embed_bias);
            add_product::<FUSED, HIDDEN>(&mut x, week, fixed::<{ INPUTS * HIDDEN }>(p, layout.embed));
            tape.top.push(x);
        }
        for (layer, passed) in layout.layers.iter().zip(&mut tape.layers) {
            pass_layer::<FUSED>(p, layer, &mut tape.top, passed);
        }
        tape.out.clear();
        for (x, week) in tape.top.iter().zip(inputs) {
            tape.out.push(outputs::<FUSED>(p, layout, x, week));
        }
    }
}

#[inline(always)]
fn pass_layer<const FUSED: bool>(p: &[f32], layer: &Layer, top: &mut [Units], passed: &mut Passed) {
    passed.x.clear();
    passed.x.extend_from_slice(top);
    passed.u.clear();
    passed.gates.clear();
    for (t, x) in top.iter_mut().enumerate() {
        let (u, _) = normalised::<FUSED>(x, fixed(p, layer.gain));
        let before = layer.before(t).map_or([0.0; HIDDEN], |t| passed.gates[t].h);
        let mut input = *fixed::<GATES>(p, layer.input_bias);
        add_product::<FUSED, GATES>(&mut input, &u, fixed::<{ HIDDEN * GATES }>(p, layer.input));
        let mut state = *fixed::<GATES>(p, layer.state_bias);
        add_product::<FUSED, GATES>(&mut state, &before, fixed::<{ HIDDEN * GATES }>(p, layer.state));
        let g = gates::<FUSED>(&input, &state, &before);
        x.iter_mut().zip(&g.h).for_each(|(x, h)| *x += h);
        passed.u.push(u);
        passed.gates.push(g);
    }
}

/// The way back: adds to `gradient` what the loss's slopes by the outputs come to.
pub struct Backward<'a> {
    /// The parameters.
    pub p: &'a [f32],
    /// The weights turned round.
    pub turned: &'a Turned,
    /// Where they stand.
    pub layout: &'a Layout,
    /// The weeks.
    pub inputs: &'a [[f32; INPUTS]],
    /// What [`Forward`] left.
    pub tape: &'a mut Tape,
    /// The loss's slope by each output.
    pub slopes: &'a [[f32; OUTPUTS]],
    /// As long as the parameters.
    pub gradient: &'a mut [f32],
}

impl Work for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Self { p, turned, layout, inputs, tape, slopes, gradient } = self;
        tape.grad.clear();
        let gain = fixed::<HIDDEN>(p, layout.gain);
        let (mut f, mut df) = (Vec::with_capacity(slopes.len()), Vec::with_capacity(slopes.len()));
        for (x, slope) in tape.top.iter().zip(slopes) {
            f.push(normalised::<FUSED>(x, gain).0);
            let mut d = [0.0; HIDDEN];
            add_product::<FUSED, HIDDEN>(&mut d, slope, &turned.out);
            df.push(d);
        }
        add_outer::<FUSED, OUTPUTS, HIDDEN>(&mut gradient[layout.out..], &f, slopes);
        add_outer::<FUSED, OUTPUTS, INPUTS>(&mut gradient[layout.skip..], inputs, slopes);
        add_sums(&mut gradient[layout.out_bias..], slopes);
        for (x, df) in tape.top.iter().zip(&df) {
            tape.grad.push(unnormalised::<FUSED>(x, gain, df, &mut gradient[layout.gain..]));
        }
        let Tape { layers, grad, input_grad, state_grad, .. } = tape;
        for ((layer, passed), (input, state)) in layout.layers.iter().zip(layers).zip(&turned.layers).rev() {
            // What comes back to a state from the layer's own later weeks is kept in the gradient of its week.
            let mut own: Vec<Units> = grad.clone();
            input_grad.clear();
            input_grad.resize(own.len(), [0.0; GATES]);
            state_grad.clear();
            state_grad.resize(own.len(), [0.0; GATES]);
            for t in (0..own.len()).rev() {
                let back = layer.before(t);
                let before = back.map_or([0.0; HIDDEN], |t| passed.gates[t].h);
                let (di, ds, mut db) = gates_back(&passed.gates[t], &before, &own[t]);
                (input_grad[t], state_grad[t]) = (di, ds);
                if let Some(back) = back {
                    add_product::<FUSED, HIDDEN>(&mut db, &ds, state);
                    for i in 0..HIDDEN {
                        own[back][i] += db[i];
                    }
                }
            }
            add_outer::<FUSED, GATES, HIDDEN>(&mut gradient[layer.input..], &passed.u, input_grad);
            add_sums(&mut gradient[layer.input_bias..], input_grad);
            let states: Vec<Units> = passed.gates.iter().map(|g| g.h).collect();
            let behind = if layer.dilation > 0 { state_grad.get(layer.dilation..).unwrap_or_default() } else { &[] };
            add_outer::<FUSED, GATES, HIDDEN>(&mut gradient[layer.state..], &states[..behind.len()], behind);
            add_sums(&mut gradient[layer.state_bias..], state_grad);
            let gain = fixed::<HIDDEN>(p, layer.gain);
            for t in 0..own.len() {
                let mut du = [0.0; HIDDEN];
                add_product::<FUSED, HIDDEN>(&mut du, &input_grad[t], input);
                let dx = unnormalised::<FUSED>(&passed.x[t], gain, &du, &mut gradient[layer.gain..]);
                for i in 0..HIDDEN {
                    grad[t][i] += dx[i];
                }
            }
        }
        add_outer::<FUSED, HIDDEN, INPUTS>(&mut gradient[layout.embed..], inputs, grad);
        add_sums(&mut gradient[layout.embed_bias..], grad);
    }
}

/// The slopes by the two products and by the state before, from the slope by the new state.
#[inline(always)]
fn gates_back(g: &Gates, before: &Units, dh: &Units) -> ([f32; GATES], [f32; GATES], Units) {
    let (mut input, mut state, mut back) = ([0.0; GATES], [0.0; GATES], [0.0; HIDDEN]);
    for i in 0..HIDDEN {
        let (r, z, n) = (g.r[i], g.z[i], g.n[i]);
        let dn = dh[i] * (1.0 - z) * (1.0 - n * n);
        let dz = dh[i] * (before[i] - n) * z * (1.0 - z);
        let dr = dn * g.s[i] * r * (1.0 - r);
        (input[i], input[HIDDEN + i], input[2 * HIDDEN + i]) = (dr, dz, dn);
        (state[i], state[HIDDEN + i], state[2 * HIDDEN + i]) = (dr, dz, dn * r);
        back[i] = dh[i] * z;
    }
    (input, state, back)
}

/// The slope by x of its normalisation; that by the gain is added up.
#[inline(always)]
fn unnormalised<const FUSED: bool>(x: &Units, gain: &Units, dy: &Units, gain_grad: &mut [f32]) -> Units {
    let mean = x.iter().map(|x| x * x).sum::<f32>() / HIDDEN as f32;
    let scale = 1.0 / (mean + EPSILON).sqrt();
    let mut dot = 0.0;
    for i in 0..HIDDEN {
        gain_grad[i] += dy[i] * x[i] * scale;
        dot += dy[i] * gain[i] * x[i];
    }
    let along = dot * scale * scale * scale / HIDDEN as f32;
    std::array::from_fn(|i| scale * gain[i] * dy[i] - x[i] * along)
}

/// `gradient += the sum over weeks of x (outer) d`.
#[inline(always)]
fn add_outer<const FUSED: bool, const N: usize, const K: usize>(gradient: &mut [f32], x: &[[f32; K]], d: &[[f32; N]]) {
    let (rows, _) = gradient.as_chunks_mut::<N>();
    for (k, row) in rows.iter_mut().take(K).enumerate() {
        let mut sums = *row;
        for (x, d) in x.iter().zip(d) {
            for j in 0..N {
                sums[j] = fma::<FUSED>(x[k], d[j], sums[j]);
            }
        }
        *row = sums;
    }
}

#[inline(always)]
fn add_sums<const N: usize>(gradient: &mut [f32], d: &[[f32; N]]) {
    for d in d {
        for j in 0..N {
            gradient[j] += d[j];
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::domain::model::kernel::Vectors;

    fn numbers(count: usize, scale: f32, mut seed: u64) -> Vec<f32> {
        let next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 40) as f32 / (1 << 24) as f32 - 0.5) * 2.0 * scale
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    /// The sum of all outputs, each with a weight of its own.
    fn loss(p: &[f32], layout: &Layout, inputs: &[[f32; INPUTS]], weights: &[[f32; OUTPUTS]]) -> f64 {
        let mut tape = Tape::default();
        Vectors::Base.run(Forward { p, layout, inputs, tape: &mut tape });
        let terms = tape.out.iter().zip(weights).flat_map(|(out, weights)| out.iter().zip(weights));
        terms.map(|(out, weight)| f64::from(*out) * f64::from(*weight)).sum()
    }

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        gradient_is_that_of_the_loss(&[1, 2]);
        gradient_is_that_of_the_loss(&[0, 3, 0]);
        gradient_is_that_of_the_loss(&[]);
    }

    fn gradient_is_that_of_the_loss(dilations: &[usize]) {
        let layout = Layout::new(dilations);
        let mut p = numbers(layout.len, 0.3, 1);
        p[layout.gain..layout.gain + HIDDEN].iter_mut().for_each(|gain| *gain += 1.0);
        let inputs: Vec<[f32; INPUTS]> = numbers(7 * INPUTS, 1.0, 2).as_chunks().0.to_vec();
        let weights: Vec<[f32; OUTPUTS]> = numbers(7 * OUTPUTS, 1.0, 3).as_chunks().0.to_vec();
        let (mut tape, mut gradient, turned) = (Tape::default(), vec![0.0; layout.len], Turned::of(&p, &layout));
        Vectors::here().run(Forward { p: &p, layout: &layout, inputs: &inputs, tape: &mut tape });
        let back = Backward {
            p: &p,
            turned: &turned,
            layout: &layout,
            inputs: &inputs,
            tape: &mut tape,
            slopes: &weights,
            gradient: &mut gradient,
        };
        Vectors::here().run(back);
        for at in (0..layout.len).step_by(37) {
            let step = 3e-3;
            let mut moved = p.clone();
            moved[at] += step;
            let up = loss(&moved, &layout, &inputs, &weights);
            moved[at] -= 2.0 * step;
            let slope = (up - loss(&moved, &layout, &inputs, &weights)) / f64::from(2.0 * step);
            let found = f64::from(gradient[at]);
            assert!((slope - found).abs() < 2e-2 + 2e-2 * slope.abs(), "parameter {at}: {found}, and the loss moves by {slope}");
        }
    }
}
