//! The network as it serves: one week more on a kept state, or a whole history of which only the last week's output is wanted.
//!
//! The arithmetic is that of training in the same order, so that whatever way a customer's weeks were taken in, the outputs are the same bit for
//! bit. What makes it fast is what is left out:
//!
//! - A kept state makes a week one step, however long the history.
//! - The last output rests on few weeks of the upper layers: a layer with dilation d is read at the weeks t, t - d, t - 2d, ...
//!   of each week that the layer above is read at. With dilations 1, 2, 4, 8 that is under half of a history's steps ([`depths`]).
//! - Before a layer's first d weeks nothing was; the product with that is not computed.
//! - Layer by layer, so that a layer's weights (25 kB) stay in the first cache while several weeks and customers are computed.
//!
//! A state is `dilation` hidden states for each layer, from the lowest up; the one of the week number `n` (from 0) is at `n % dilation`. A new
//! customer's is all zeros with no step taken.

use super::Member;
use super::kernel::{Vectors, Work, add_product};
use super::network::{GATES, HIDDEN, INPUTS, Layer, Layout, OUTPUTS, fixed, gates, normalised, outputs};

type Units = [f32; HIDDEN];

/// Customers whose histories are replayed together: their weeks of one layer fit into the first cache beside the layer's weights.
const TOGETHER: usize = 4;

/// Floats of a customer's state.
#[must_use]
pub fn state_len(layout: &Layout) -> usize {
    layout.layers.iter().map(|layer| layer.dilation * HIDDEN).sum()
}

/// Takes in one week behind `steps` others. `state` has [`state_len`] floats.
pub fn advance(member: &Member, steps: &mut u32, state: &mut [f32], inputs: &[f32; INPUTS]) {
    Vectors::here().run(Advance { member, steps: *steps, state, inputs });
    *steps = steps.saturating_add(1);
}

/// What comes out behind one week more, which is not kept: it may go on. `state` has [`state_len`] floats.
#[must_use]
pub fn peek(member: &Member, steps: u32, state: &[f32], inputs: &[f32; INPUTS]) -> [f32; OUTPUTS] {
    Vectors::here().run(Peek { member, steps, state, inputs })
}

/// What comes out behind the last of a customer's weeks; without any, what corrects nothing.
#[must_use]
pub fn replay(member: &Member, inputs: &[[f32; INPUTS]]) -> [f32; OUTPUTS] {
    let mut out = [[0.0; OUTPUTS]];
    replay_many(member, &[inputs], &mut out);
    out[0]
}

/// [`replay`] for many customers: `outs` in their order.
pub fn replay_many(member: &Member, histories: &[&[[f32; INPUTS]]], outs: &mut [[f32; OUTPUTS]]) {
    Vectors::here().run(Replay { member, histories, outs });
}

/// The state behind a customer's weeks, into `state` of [`state_len`] floats. Returns the steps taken.
pub fn restore(member: &Member, inputs: &[[f32; INPUTS]], state: &mut [f32]) -> u32 {
    Vectors::here().run(Restore { member, inputs, state })
}

/// [`advance`], but for the count.
pub struct Advance<'a> {
    /// The network.
    pub member: &'a Member,
    /// Weeks taken in before.
    pub steps: u32,
    /// The state, which becomes that behind the week.
    pub state: &'a mut [f32],
    /// The week.
    pub inputs: &'a [f32; INPUTS],
}

impl Work for Advance<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Member { layout, parameters: p, .. } = self.member;
        let (mut x, mut at) = (embedded::<FUSED>(p, layout, self.inputs), 0);
        for layer in &layout.layers {
            let slot = slot(layer, self.steps, at);
            let before = (self.steps as usize >= layer.dilation).then(|| *fixed::<HIDDEN>(self.state, slot));
            let h = step::<FUSED>(p, layer, &mut x, before.as_ref());
            self.state[slot..slot + HIDDEN].copy_from_slice(&h);
            at += layer.dilation * HIDDEN;
        }
    }
}

/// [`peek`].
pub struct Peek<'a> {
    /// The network.
    pub member: &'a Member,
    /// Weeks taken in before.
    pub steps: u32,
    /// The state behind them.
    pub state: &'a [f32],
    /// The week.
    pub inputs: &'a [f32; INPUTS],
}

impl Work for Peek<'_> {
    type Output = [f32; OUTPUTS];

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> [f32; OUTPUTS] {
        let Member { layout, parameters: p, .. } = self.member;
        let (mut x, mut at) = (embedded::<FUSED>(p, layout, self.inputs), 0);
        for layer in &layout.layers {
            let before = (self.steps as usize >= layer.dilation).then(|| fixed::<HIDDEN>(self.state, slot(layer, self.steps, at)));
            step::<FUSED>(p, layer, &mut x, before);
            at += layer.dilation * HIDDEN;
        }
        outputs::<FUSED>(p, layout, &x, self.inputs)
    }
}

/// [`replay_many`].
pub struct Replay<'a> {
    /// The network.
    pub member: &'a Member,
    /// Each customer's weeks.
    pub histories: &'a [&'a [[f32; INPUTS]]],
    /// One for each customer.
    pub outs: &'a mut [[f32; OUTPUTS]],
}

impl Work for Replay<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let Member { layout, parameters: p, .. } = self.member;
        let longest = self.histories.iter().map(|weeks| weeks.len()).max().unwrap_or(0);
        let depths = depths(layout, longest);
        let mut weeks: [Vec<Units>; TOGETHER] = Default::default();
        let mut states = Vec::with_capacity(longest);
        for (histories, outs) in self.histories.chunks(TOGETHER).zip(self.outs.chunks_mut(TOGETHER)) {
            for (inputs, top) in histories.iter().zip(&mut weeks) {
                embed::<FUSED>(p, layout, inputs, top);
            }
            for (below, layer) in layout.layers.iter().enumerate() {
                for (inputs, top) in histories.iter().zip(&mut weeks) {
                    let depths = &depths[longest - inputs.len()..];
                    pass::<FUSED>(p, layer, top, &mut states, depths, below);
                }
            }
            for ((inputs, top), out) in histories.iter().zip(&weeks).zip(outs) {
                *out = match (inputs.last(), top.last()) {
                    (Some(week), Some(x)) => outputs::<FUSED>(p, layout, x, week),
                    _ => [0.0; OUTPUTS],
                };
            }
        }
    }
}

/// [`restore`].
pub struct Restore<'a> {
    /// The network.
    pub member: &'a Member,
    /// The weeks.
    pub inputs: &'a [[f32; INPUTS]],
    /// Becomes the state behind them.
    pub state: &'a mut [f32],
}

impl Work for Restore<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<const FUSED: bool>(self) -> u32 {
        let Member { layout, parameters: p, .. } = self.member;
        self.state.fill(0.0);
        let (mut top, mut states, mut at) = (Vec::new(), Vec::new(), 0);
        embed::<FUSED>(p, layout, self.inputs, &mut top);
        let all = vec![u8::MAX; top.len()];
        for (below, layer) in layout.layers.iter().enumerate() {
            pass::<FUSED>(p, layer, &mut top, &mut states, &all, below);
            for (week, h) in states.iter().enumerate().skip(states.len().saturating_sub(layer.dilation)) {
                let slot = slot(layer, week as u32, at);
                self.state[slot..slot + HIDDEN].copy_from_slice(h);
            }
            at += layer.dilation * HIDDEN;
        }
        self.inputs.len() as u32
    }
}

/// Where the state of a layer, whose states begin `at`, stands for the week number `steps`; until then it is that of `dilation` weeks before.
fn slot(layer: &Layer, steps: u32, at: usize) -> usize {
    at + steps as usize % layer.dilation * HIDDEN
}

/// Of each week, how many layers from the lowest up the last week's output rests on.
fn depths(layout: &Layout, weeks: usize) -> Vec<u8> {
    let mut depths = vec![0; weeks];
    if let Some(last) = depths.last_mut() {
        *last = layout.layers.len() as u8;
    }
    for (below, layer) in layout.layers.iter().enumerate().rev() {
        for week in (layer.dilation..weeks).rev() {
            if usize::from(depths[week]) > below {
                depths[week - layer.dilation] = depths[week - layer.dilation].max(below as u8 + 1);
            }
        }
    }
    depths
}

#[inline(always)]
fn embedded<const FUSED: bool>(p: &[f32], layout: &Layout, week: &[f32; INPUTS]) -> Units {
    let mut x = *fixed::<HIDDEN>(p, layout.embed_bias);
    add_product::<FUSED, HIDDEN>(&mut x, week, fixed::<{ INPUTS * HIDDEN }>(p, layout.embed));
    x
}

#[inline(always)]
fn embed<const FUSED: bool>(p: &[f32], layout: &Layout, inputs: &[[f32; INPUTS]], top: &mut Vec<Units>) {
    top.clear();
    for week in inputs {
        top.push(embedded::<FUSED>(p, layout, week));
    }
}

/// One layer over those of a customer's weeks whose depth is more than the layers below it; its states are left in `states`, zeros
/// for the other weeks.
#[inline(always)]
fn pass<const FUSED: bool>(p: &[f32], layer: &Layer, top: &mut [Units], states: &mut Vec<Units>, depths: &[u8], below: usize) {
    states.clear();
    states.resize(top.len(), [0.0; HIDDEN]);
    for week in 0..top.len() {
        if usize::from(depths[week]) <= below {
            continue;
        }
        states[week] = match week.checked_sub(layer.dilation) {
            Some(before) => step::<FUSED>(p, layer, &mut top[week], Some(&states[before])),
            None => step::<FUSED>(p, layer, &mut top[week], None),
        };
    }
}

/// One week of one layer: the new state, which is added to `x`.
///
/// A product with the zeros before the first weeks would add nothing but the sign of a zero to its bias, and that is lost in the gates.
#[inline(always)]
fn step<const FUSED: bool>(p: &[f32], layer: &Layer, x: &mut Units, before: Option<&Units>) -> Units {
    let mut state = *fixed::<GATES>(p, layer.state_bias);
    if let Some(before) = before {
        add_product::<FUSED, GATES>(&mut state, before, fixed::<{ HIDDEN * GATES }>(p, layer.state));
    }
    let (u, _) = normalised::<FUSED>(x, fixed(p, layer.gain));
    let mut input = *fixed::<GATES>(p, layer.input_bias);
    add_product::<FUSED, GATES>(&mut input, &u, fixed::<{ HIDDEN * GATES }>(p, layer.input));
    let h = gates::<FUSED>(&input, &state, before.unwrap_or(&[0.0; HIDDEN])).h;
    x.iter_mut().zip(&h).for_each(|(x, h)| *x += h);
    h
}
