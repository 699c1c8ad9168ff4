//! The network as it serves: one week more on a kept state, or a whole history of which only the last week's output is wanted.
//!
//! The arithmetic is that of training in the same order, so that whatever way a customer's weeks were taken in, the outputs are the same bit for
//! bit. What makes it fast is what is left out:
//!
//! - A kept state makes a week one step, however long the history.
//! - The last output rests on few weeks of the upper layers: a layer with dilation d is read at the weeks t, t - d, t - 2d, ...
//!   of each week that the layer above is read at. With dilations 1, 2, 4, 8 that is under half of a history's steps ([`depths`]).
//! - Before a layer's first d weeks nothing was; the product with that is not computed.
//! - Layer by layer, so that a layer's weights (25 kB) stay in the first cache while several weeks and customers are computed; and
//!   [`TOGETHER`] customers at a time, for whom a row of weights is read once.
//!
//! A state is `dilation` hidden states for each layer, from the lowest up; the one of the week number `n` (from 0) is at `n % dilation`. A new
//! customer's is all zeros with no step taken.

use std::cmp::Reverse;

use super::Member;
use super::kernel::{Vectors, Work, add_product, fma};
use super::network::{GATES, HIDDEN, INPUTS, Layer, Layout, OUTPUTS, fixed, gates, normalised, outputs};

type Units = [f32; HIDDEN];

/// Customers who are computed together.
pub const TOGETHER: usize = 4;
/// Columns of their sums that are kept in registers: two vectors for each customer, beside two of weights.
const TILE: usize = 16;

/// A customer's kept state and the week behind it, which may go on.
#[derive(Debug, Clone, Copy)]
pub struct Open<'a> {
    /// Weeks that the state has taken in.
    pub steps: u32,
    /// The state, of [`state_len`] floats.
    pub state: &'a [f32],
    /// The week.
    pub inputs: &'a [f32; INPUTS],
}

/// Floats of a customer's state.
#[must_use]
pub fn state_len(layout: &Layout) -> usize {
    layout.layers.iter().map(|layer| layer.dilation * HIDDEN).sum()
}

/// Takes in one week behind `steps` others. Allocates nothing.
///
/// # Panics
/// `state` has less than [`state_len`] floats.
pub fn advance(member: &Member, steps: &mut u32, state: &mut [f32], inputs: &[f32; INPUTS]) {
    if state_len(&member.layout) > 0 {
        Vectors::here().run(Advance { member, steps: *steps, state, inputs });
    }
    *steps = steps.saturating_add(1);
}

/// What comes out behind one week more, which may go on: the state stays as it is. Allocates nothing.
///
/// # Panics
/// `state` has less than [`state_len`] floats.
#[must_use]
pub fn peek(member: &Member, steps: u32, state: &[f32], inputs: &[f32; INPUTS]) -> [f32; OUTPUTS] {
    let mut out = [[0.0; OUTPUTS]];
    peek_many(member, &[Open { steps, state, inputs }], &mut out);
    out[0]
}

/// [`peek`] for many customers: `outs` in their order, for as many as both have. In two thirds of the time.
///
/// # Panics
/// A state has less than [`state_len`] floats.
pub fn peek_many(member: &Member, customers: &[Open<'_>], outs: &mut [[f32; OUTPUTS]]) {
    Vectors::here().run(Peek { member, customers, outs });
}

/// What comes out behind the last of a customer's weeks; without any, zeros, which correct nothing.
#[must_use]
pub fn replay(member: &Member, inputs: &[[f32; INPUTS]]) -> [f32; OUTPUTS] {
    let mut out = [[0.0; OUTPUTS]];
    replay_many(member, &[inputs], &mut out);
    out[0]
}

/// [`replay`] for many customers: `outs` in their order, for as many as both have.
pub fn replay_many(member: &Member, histories: &[&[[f32; INPUTS]]], outs: &mut [[f32; OUTPUTS]]) {
    Vectors::here().run(Replay { member, histories, outs });
}

/// The state behind a customer's weeks, into `state` of [`state_len`] floats. Returns the steps taken.
///
/// # Panics
/// `state` has less than [`state_len`] floats.
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
        let (mut x, mut at) = ([embedded::<FUSED>(p, layout, self.inputs)], 0);
        for layer in &layout.layers {
            let (before, any) = remembered(layer, self.steps, self.state, at);
            let [h] = step::<FUSED, 1>(p, layer, &mut x, &[before], any);
            if let Some(slot) = slot(layer, self.steps, at) {
                self.state[slot..slot + HIDDEN].copy_from_slice(&h);
            }
            at += layer.dilation * HIDDEN;
        }
    }
}

/// [`peek_many`].
pub struct Peek<'a> {
    /// The network.
    pub member: &'a Member,
    /// The customers.
    pub customers: &'a [Open<'a>],
    /// One for each customer.
    pub outs: &'a mut [[f32; OUTPUTS]],
}

impl Work for Peek<'_> {
    type Output = ();

    #[inline(always)]
    fn run<const FUSED: bool>(self) {
        let ((groups, others), (group_outs, other_outs)) = (self.customers.as_chunks::<TOGETHER>(), self.outs.as_chunks_mut::<TOGETHER>());
        for (customers, outs) in groups.iter().zip(group_outs) {
            *outs = peeked::<FUSED, TOGETHER>(self.member, customers);
        }
        for (customer, out) in others.iter().zip(other_outs) {
            [*out] = peeked::<FUSED, 1>(self.member, std::array::from_ref(customer));
        }
    }
}

#[inline(always)]
fn peeked<const FUSED: bool, const M: usize>(member: &Member, customers: &[Open<'_>; M]) -> [[f32; OUTPUTS]; M] {
    let Member { layout, parameters: p, .. } = member;
    let (mut x, mut at) = ([[0.0; HIDDEN]; M], 0);
    for m in 0..M {
        x[m] = embedded::<FUSED>(p, layout, customers[m].inputs);
    }
    for layer in &layout.layers {
        let (mut before, mut any) = ([[0.0; HIDDEN]; M], false);
        for m in 0..M {
            let Open { steps, state, .. } = customers[m];
            let (h, is) = remembered(layer, steps, state, at);
            (before[m], any) = (h, any | is);
        }
        step::<FUSED, M>(p, layer, &mut x, &before, any);
        at += layer.dilation * HIDDEN;
    }
    let mut outs = [[0.0; OUTPUTS]; M];
    for m in 0..M {
        outs[m] = outputs::<FUSED>(p, layout, &x[m], customers[m].inputs);
    }
    outs
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
        let Self { member: Member { layout, parameters: p, .. }, histories, outs } = self;
        // Those of about the same length together.
        let mut order: Vec<usize> = (0..histories.len().min(outs.len())).collect();
        order.sort_unstable_by_key(|i| Reverse(histories[*i].len()));
        let depths = depths(layout, order.first().map_or(0, |i| histories[*i].len()));
        let mut group: [Passed; TOGETHER] = Default::default();
        for customers in order.chunks(TOGETHER) {
            let group = &mut group[..customers.len()];
            for (i, passed) in customers.iter().zip(&mut *group) {
                embed::<FUSED>(p, layout, histories[*i], passed, &depths);
            }
            for (below, layer) in layout.layers.iter().enumerate() {
                pass::<FUSED>(p, layer, group, &depths, below);
            }
            for (i, passed) in customers.iter().zip(&*group) {
                outs[*i] = match (histories[*i].last(), passed.top.last()) {
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
        let Self { member: Member { layout, parameters: p, .. }, inputs, state } = self;
        state.fill(0.0);
        let (mut passed, mut at) = ([Passed::default()], 0);
        let all = vec![u8::MAX; inputs.len()];
        embed::<FUSED>(p, layout, inputs, &mut passed[0], &all);
        for (below, layer) in layout.layers.iter().enumerate() {
            pass::<FUSED>(p, layer, &mut passed, &all, below);
            let states = &passed[0].states;
            for (week, h) in states.iter().enumerate().skip(states.len().saturating_sub(layer.dilation)) {
                if let Some(slot) = slot(layer, week as u32, at) {
                    state[slot..slot + HIDDEN].copy_from_slice(h);
                }
            }
            at += layer.dilation * HIDDEN;
        }
        inputs.len() as u32
    }
}

/// Where the state of a layer, whose states begin `at`, stands for the week number `steps`; until then it is that of `dilation` weeks before.
fn slot(layer: &Layer, steps: u32, at: usize) -> Option<usize> {
    (steps as usize).checked_rem(layer.dilation).map(|place| at + place * HIDDEN)
}

/// The state that a layer joins to the week number `steps`, and whether there is one.
#[inline(always)]
fn remembered(layer: &Layer, steps: u32, state: &[f32], at: usize) -> (Units, bool) {
    match (slot(layer, steps, at), layer.before(steps as usize)) {
        (Some(slot), Some(_)) => (*fixed(state, slot), true),
        _ => ([0.0; HIDDEN], false),
    }
}

/// Of each week, how many layers from the lowest up the last week's output rests on.
fn depths(layout: &Layout, weeks: usize) -> Vec<u8> {
    let mut depths = vec![0; weeks];
    if let Some(last) = depths.last_mut() {
        *last = layout.layers.len() as u8;
    }
    for (below, layer) in layout.layers.iter().enumerate().rev() {
        for week in (0..weeks).rev() {
            if let (true, Some(before)) = (usize::from(depths[week]) > below, layer.before(week)) {
                depths[before] = depths[before].max(below as u8 + 1);
            }
        }
    }
    depths
}

// What follows is compiled into its callers for their vectors. A closure would not be, so that there are loops where a closure would do.

/// What a layer makes of a customer's weeks.
#[derive(Default)]
struct Passed {
    /// What the layer above reads.
    top: Vec<Units>,
    /// The layer's own states; zeros for weeks that were not computed.
    states: Vec<Units>,
}

#[inline(always)]
fn embedded<const FUSED: bool>(p: &[f32], layout: &Layout, week: &[f32; INPUTS]) -> Units {
    let mut x = *fixed::<HIDDEN>(p, layout.embed_bias);
    add_product::<FUSED, HIDDEN>(&mut x, week, fixed::<{ INPUTS * HIDDEN }>(p, layout.embed));
    x
}

/// What the lowest layer reads of a customer's weeks; zeros where none does. The last is the heads' too.
#[inline(always)]
fn embed<const FUSED: bool>(p: &[f32], layout: &Layout, inputs: &[[f32; INPUTS]], passed: &mut Passed, depths: &[u8]) {
    passed.top.clear();
    passed.top.resize(inputs.len(), [0.0; HIDDEN]);
    for (i, depth) in depths[depths.len() - inputs.len()..].iter().enumerate() {
        if *depth > 0 || i + 1 == inputs.len() {
            passed.top[i] = embedded::<FUSED>(p, layout, &inputs[i]);
        }
    }
}

/// One layer over those weeks of some customers whose depth is more than the layers `below` it. `depths` is for the longest history or a longer
/// one, and ends where each history ends.
#[inline(always)]
fn pass<const FUSED: bool>(p: &[f32], layer: &Layer, group: &mut [Passed], depths: &[u8], below: usize) {
    for Passed { top, states } in &mut *group {
        states.clear();
        states.resize(top.len(), [0.0; HIDDEN]);
    }
    for (at, depth) in depths.iter().enumerate() {
        let left = depths.len() - at;
        if usize::from(*depth) <= below {
            continue;
        }
        match <&mut [Passed; TOGETHER]>::try_from(&mut *group) {
            Ok(group) if group.iter().all(|passed| passed.top.len() >= left) => pass_week::<FUSED, TOGETHER>(p, layer, group, left),
            _ => {
                for passed in &mut *group {
                    if passed.top.len() >= left {
                        pass_week::<FUSED, 1>(p, layer, std::array::from_mut(passed), left);
                    }
                }
            }
        }
    }
}

/// The week that is the last but `left` - 1 of each of `M` customers.
#[inline(always)]
fn pass_week<const FUSED: bool, const M: usize>(p: &[f32], layer: &Layer, group: &mut [Passed; M], left: usize) {
    let (mut x, mut before, mut any) = ([[0.0; HIDDEN]; M], [[0.0; HIDDEN]; M], false);
    for m in 0..M {
        let Passed { top, states } = &group[m];
        let week = top.len() - left;
        x[m] = top[week];
        if let Some(back) = layer.before(week) {
            (before[m], any) = (states[back], true);
        }
    }
    let after = step::<FUSED, M>(p, layer, &mut x, &before, any);
    for m in 0..M {
        let Passed { top, states } = &mut group[m];
        let week = top.len() - left;
        (top[week], states[week]) = (x[m], after[m]);
    }
}

/// One week of one layer for `M` customers: the new states, which are added to `x`. `any` says whether there was `any` week `before`.
///
/// Where there was none, the product with its zeros would add nothing but the sign of a zero to its bias, and that is lost in the gates.
#[inline(always)]
fn step<const FUSED: bool, const M: usize>(p: &[f32], layer: &Layer, x: &mut [Units; M], before: &[Units; M], any: bool) -> [Units; M] {
    let mut u = [[0.0; HIDDEN]; M];
    for m in 0..M {
        u[m] = normalised::<FUSED>(&x[m], fixed(p, layer.gain)).0;
    }
    let mut state = [*fixed::<GATES>(p, layer.state_bias); M];
    if any {
        add_products::<FUSED, M>(&mut state, before, fixed::<{ HIDDEN * GATES }>(p, layer.state));
    }
    let mut input = [*fixed::<GATES>(p, layer.input_bias); M];
    add_products::<FUSED, M>(&mut input, &u, fixed::<{ HIDDEN * GATES }>(p, layer.input));
    let mut after = [[0.0; HIDDEN]; M];
    for m in 0..M {
        after[m] = gates::<FUSED>(&input[m], &state[m], &before[m]).h;
        for i in 0..HIDDEN {
            x[m][i] += after[m][i];
        }
    }
    after
}

/// [`add_product`] for `M` customers, with the same sums in the same order.
#[inline(always)]
fn add_products<const FUSED: bool, const M: usize>(outs: &mut [[f32; GATES]; M], x: &[Units; M], weights: &[f32; HIDDEN * GATES]) {
    // Without fused products there is no room for the sums of several (SSE2).
    if M == 1 || !FUSED {
        for m in 0..M {
            add_product::<FUSED, GATES>(&mut outs[m], &x[m], weights);
        }
        return;
    }
    let (rows, _) = weights.as_chunks::<GATES>();
    for tile in 0..GATES / TILE {
        let mut sums = [[0.0; TILE]; M];
        for m in 0..M {
            sums[m] = outs[m].as_chunks().0[tile];
        }
        for (k, row) in rows.iter().enumerate() {
            let row: [f32; TILE] = row.as_chunks().0[tile];
            for m in 0..M {
                for j in 0..TILE {
                    sums[m][j] = fma::<FUSED>(x[m][k], row[j], sums[m][j]);
                }
            }
        }
        for m in 0..M {
            outs[m].as_chunks_mut().0[tile] = sums[m];
        }
    }
}
