//! The network as it serves: whatever way a customer's weeks are taken in, what comes out is what training has, bit for bit.

use proptest::prelude::*;
use syncvalue::domain::model::Member;
use syncvalue::domain::model::kernel::Vectors;
use syncvalue::domain::model::network::{INPUTS, Layout, OUTPUTS};
use syncvalue::domain::model::serve::{self, Advance, Open, Peek, Replay, Restore, TOGETHER};
use syncvalue::train::gradient::{Forward, Tape};
use syncvalue::train::random::Random;

type Week = [f32; INPUTS];

/// What a model may be made of: the usual layers, some that are not each other's multiples, and none.
const LAYERS: [&[usize]; 8] = [&[1, 2, 4, 8], &[1], &[], &[8, 4, 2, 1], &[3, 2], &[5, 1, 64], &[2, 2], &[16; 16]];

/// Weights as wide as those of trained networks, biases that are zero of either sign among them.
fn member(dilations: &[usize], random: &mut Random) -> Member {
    let layout = Layout::new(dilations);
    let mut parameters: Vec<f32> = (0..layout.len).map(|_| 0.4 * random.uniform()).collect();
    parameters.iter_mut().step_by(7).for_each(|p| *p *= 0.0);
    Member { layout, own: 1.0, parameters }
}

fn weeks(count: usize, random: &mut Random) -> Vec<Week> {
    (0..count).map(|_| std::array::from_fn(|_| 3.0 * random.uniform())).collect()
}

fn bits(out: [f32; OUTPUTS]) -> [u32; OUTPUTS] {
    out.map(f32::to_bits)
}

/// Week by week, as training has it.
fn trained(vectors: Vectors, member: &Member, inputs: &[Week]) -> Vec<[f32; OUTPUTS]> {
    let mut tape = Tape::default();
    vectors.run(Forward { p: &member.parameters, layout: &member.layout, inputs, tape: &mut tape });
    tape.out
}

/// Every way of `serve` against [`trained`].
fn check(vectors: Vectors, member: &Member, histories: &[Vec<Week>]) {
    let empty = vec![0.0; serve::state_len(&member.layout)];
    let mut last = Vec::new();
    for inputs in histories {
        let expected = trained(vectors, member, inputs);
        last.push(expected.last().copied().unwrap_or_default());
        let mut state = empty.clone();
        for (steps, (inputs, expected)) in inputs.iter().zip(&expected).enumerate() {
            let steps = steps as u32;
            let mut outs = [[f32::NAN; OUTPUTS]; TOGETHER + 1];
            // Together with one who is new.
            let (open, new) = (Open { steps, state: &state, inputs }, Open { steps: 0, state: &empty, inputs });
            vectors.run(Peek { member, customers: &[open, new, open, open, open], outs: &mut outs });
            assert_eq!(outs.map(bits)[2..], [bits(*expected); TOGETHER - 1], "week {steps}");
            assert_eq!(bits(outs[0]), bits(*expected));
            assert_eq!(bits(outs[1]), bits(trained(vectors, member, &[*inputs])[0]));
            vectors.run(Advance { member, steps, state: &mut state, inputs });
        }
        let mut restored = vec![f32::NAN; state.len()];
        assert_eq!(vectors.run(Restore { member, inputs, state: &mut restored }), inputs.len() as u32);
        assert!(state.iter().map(|x| x.to_bits()).eq(restored.iter().map(|x| x.to_bits())));
    }
    let histories: Vec<&[Week]> = histories.iter().map(Vec::as_slice).collect();
    let mut outs = vec![[f32::NAN; OUTPUTS]; histories.len()];
    vectors.run(Replay { member, histories: &histories, outs: &mut outs });
    assert!(outs.iter().map(|out| bits(*out)).eq(last.iter().map(|out| bits(*out))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_way_is_that_of_training(seed: u64, layers in 0..LAYERS.len(), lengths in proptest::collection::vec(0_usize..80, 1..8)) {
        let mut random = Random(seed);
        let member = member(LAYERS[layers], &mut random);
        let histories: Vec<_> = lengths.iter().map(|weeks_of| weeks(*weeks_of, &mut random)).collect();
        for vectors in [Vectors::here(), Vectors::Base] {
            check(vectors, &member, &histories);
        }
    }
}

#[test]
fn the_functions_take_the_processors_vectors() {
    let mut random = Random(1);
    let (member, inputs) = (member(&[1, 2, 4, 8], &mut random), weeks(40, &mut random));
    let expected = trained(Vectors::here(), &member, &inputs);
    let mut state = vec![0.0; serve::state_len(&member.layout)];
    assert_eq!(state.len(), (1 + 2 + 4 + 8) * 32);
    let mut steps = serve::restore(&member, &inputs[..30], &mut state);
    for week in &inputs[30..39] {
        serve::advance(&member, &mut steps, &mut state, week);
    }
    assert_eq!(steps, 39);
    let last = bits(expected[39]);
    assert_eq!(bits(serve::peek(&member, steps, &state, &inputs[39])), last);
    assert_eq!(bits(serve::replay(&member, &inputs)), last);
    let mut outs = [[0.0; OUTPUTS]; 3];
    serve::replay_many(&member, &[&inputs, &[], &inputs[..1]], &mut outs);
    assert_eq!(outs.map(bits), [last, [0; OUTPUTS], bits(expected[0])]);
}

#[test]
fn the_number_of_a_step_may_be_any() {
    let member = member(&[1, 2, 4, 8], &mut Random(2));
    let mut state = vec![0.0; serve::state_len(&member.layout)];
    let out = serve::peek(&member, u32::MAX, &state, &[0.5; INPUTS]);
    let mut steps = u32::MAX - 1;
    serve::advance(&member, &mut steps, &mut state, &[0.5; INPUTS]);
    assert_eq!(steps, u32::MAX);
    assert!(out.iter().all(|x| x.is_finite()));
}
