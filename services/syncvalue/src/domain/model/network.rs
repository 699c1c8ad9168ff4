//! The network: weekly inputs -> embedding -> dilated GRU layers, each added to what it read -> heads.
//!
//! A layer with dilation d joins a week to the week d before it, so that four layers with 1, 2, 4, 8 look back over fifteen weeks in
//! one step each and further through their states. Layer by layer, for week t:
//!
//! ```text
//! u = x / rms(x) * g
//! r, z = sigmoid(u Wx + bx + h[t-d] Wh + bh)
//! n = tanh(u Wx + bx + r * (h[t-d] Wh + bh))          h = (1 - z) n + z h[t-d]          x = x + h
//! ```
//!
//! A layer with dilation 0 has no week before it, h[t-d] = 0: it reads its week alone, with gates of its own.
//!
//! (the GRU of Cho et al. 2014 with the reset behind the product, as cuDNN and ONNX's `linear_before_reset` have it; dilation as in Chang et
//! al. 2017, "Dilated Recurrent Neural Networks"; normalised as in Zhang and Sennrich 2019). The heads read the last x, normalised, and
//! the week's inputs themselves, so that a linear model is part of it.

use super::kernel::{add_product, fma, sigmoid, tanh};

/// Units of a layer.
pub const HIDDEN: usize = 32;
/// r, z and n of each unit.
pub const GATES: usize = 3 * HIDDEN;
/// Numbers that a week comes as.
pub const INPUTS: usize = 24;
/// Numbers that come out.
pub const OUTPUTS: usize = 8;
/// Added to the mean of squares, so that nothing is divided by 0.
pub const EPSILON: f32 = 1e-5;

/// Where each tensor stands in the parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// INPUTS x HIDDEN.
    pub embed: usize,
    /// HIDDEN.
    pub embed_bias: usize,
    /// One for each dilation.
    pub layers: Vec<Layer>,
    /// HIDDEN: the gain of the last normalisation.
    pub gain: usize,
    /// HIDDEN x OUTPUTS.
    pub out: usize,
    /// INPUTS x OUTPUTS.
    pub skip: usize,
    /// OUTPUTS.
    pub out_bias: usize,
    /// How many parameters there are.
    pub len: usize,
}

/// One layer's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Weeks that it looks back; with 0 it reads its week alone.
    pub dilation: usize,
    /// HIDDEN.
    pub gain: usize,
    /// HIDDEN x GATES: of the layer below.
    pub input: usize,
    /// GATES.
    pub input_bias: usize,
    /// HIDDEN x GATES: of the layer's own state.
    pub state: usize,
    /// GATES.
    pub state_bias: usize,
}

impl Layout {
    /// Of a network with these dilations, from the lowest layer up. With none above 0 it has no state: it reads the last week alone.
    #[must_use]
    pub fn new(dilations: &[usize]) -> Self {
        let mut len = 0;
        let mut take = |many: usize| {
            len += many;
            len - many
        };
        let (embed, embed_bias) = (take(INPUTS * HIDDEN), take(HIDDEN));
        let mut layer = |dilation: &usize| Layer {
            dilation: *dilation,
            gain: take(HIDDEN),
            input: take(HIDDEN * GATES),
            input_bias: take(GATES),
            state: take(HIDDEN * GATES),
            state_bias: take(GATES),
        };
        let layers = dilations.iter().map(&mut layer).collect();
        let (gain, out, skip, out_bias) = (take(HIDDEN), take(HIDDEN * OUTPUTS), take(INPUTS * OUTPUTS), take(OUTPUTS));
        Self { embed, embed_bias, layers, gain, out, skip, out_bias, len }
    }

    /// Every tensor: its name, where it stands, and its rows and columns.
    #[must_use]
    pub fn tensors(&self) -> Vec<(String, usize, [usize; 2])> {
        let named = |name: &str, at, rows, columns| (name.to_owned(), at, [rows, columns]);
        let mut tensors = vec![named("embed.weight", self.embed, INPUTS, HIDDEN), named("embed.bias", self.embed_bias, 1, HIDDEN)];
        for (i, layer) in self.layers.iter().enumerate() {
            let named = |name: &str, at, rows, columns| (format!("layers.{i}.{name}"), at, [rows, columns]);
            tensors.extend([
                named("norm.gain", layer.gain, 1, HIDDEN),
                named("input.weight", layer.input, HIDDEN, GATES),
                named("input.bias", layer.input_bias, 1, GATES),
                named("state.weight", layer.state, HIDDEN, GATES),
                named("state.bias", layer.state_bias, 1, GATES),
            ]);
        }
        tensors.extend([
            named("norm.gain", self.gain, 1, HIDDEN),
            named("heads.weight", self.out, HIDDEN, OUTPUTS),
            named("heads.skip", self.skip, INPUTS, OUTPUTS),
            named("heads.bias", self.out_bias, 1, OUTPUTS),
        ]);
        tensors
    }
}

impl Layer {
    /// The week that is joined to `week`, if there is one before it.
    #[must_use]
    pub fn before(&self, week: usize) -> Option<usize> {
        if self.dilation > 0 { week.checked_sub(self.dilation) } else { None }
    }
}

/// The `N` parameters from `at` on.
#[inline(always)]
pub fn fixed<const N: usize>(parameters: &[f32], at: usize) -> &[f32; N] {
    parameters[at..at + N].first_chunk().unwrap_or(&[0.0; N]) // the slice has N
}

/// x / rms(x) * gain, and 1 / rms(x).
#[inline(always)]
pub fn normalised<const FUSED: bool>(x: &[f32; HIDDEN], gain: &[f32; HIDDEN]) -> ([f32; HIDDEN], f32) {
    let mut lanes = [0.0; 8];
    for (i, x) in x.iter().enumerate() {
        lanes[i % 8] = fma::<FUSED>(*x, *x, lanes[i % 8]);
    }
    let mean = lanes.iter().sum::<f32>() / HIDDEN as f32;
    let scale = 1.0 / (mean + EPSILON).sqrt();
    (std::array::from_fn(|i| x[i] * scale * gain[i]), scale)
}

/// A unit's gates and what they were made from.
#[derive(Debug, Clone, Copy)]
pub struct Gates {
    /// Reset.
    pub r: [f32; HIDDEN],
    /// Update.
    pub z: [f32; HIDDEN],
    /// Candidate.
    pub n: [f32; HIDDEN],
    /// What the reset multiplies.
    pub s: [f32; HIDDEN],
    /// The new state.
    pub h: [f32; HIDDEN],
}

/// One GRU step from the two products.
#[inline(always)]
pub fn gates<const FUSED: bool>(input: &[f32; GATES], state: &[f32; GATES], before: &[f32; HIDDEN]) -> Gates {
    let mut g = Gates { r: [0.0; HIDDEN], z: [0.0; HIDDEN], n: [0.0; HIDDEN], s: [0.0; HIDDEN], h: [0.0; HIDDEN] };
    for i in 0..HIDDEN {
        g.r[i] = sigmoid::<FUSED>(input[i] + state[i]);
    }
    for i in 0..HIDDEN {
        g.z[i] = sigmoid::<FUSED>(input[HIDDEN + i] + state[HIDDEN + i]);
    }
    for i in 0..HIDDEN {
        g.s[i] = state[2 * HIDDEN + i];
        g.n[i] = tanh::<FUSED>(fma::<FUSED>(g.r[i], g.s[i], input[2 * HIDDEN + i]));
        g.h[i] = fma::<FUSED>(g.z[i], before[i] - g.n[i], g.n[i]);
    }
    g
}

/// The heads' numbers.
#[inline(always)]
pub fn outputs<const FUSED: bool>(p: &[f32], layout: &Layout, x: &[f32; HIDDEN], inputs: &[f32; INPUTS]) -> [f32; OUTPUTS] {
    let (f, _) = normalised::<FUSED>(x, fixed(p, layout.gain));
    let mut out = *fixed::<OUTPUTS>(p, layout.out_bias);
    add_product::<FUSED, OUTPUTS>(&mut out, &f, fixed::<{ HIDDEN * OUTPUTS }>(p, layout.out));
    add_product::<FUSED, OUTPUTS>(&mut out, inputs, fixed::<{ INPUTS * OUTPUTS }>(p, layout.skip));
    out
}
