//! Networks that were brought along as ONNX files: one of ours answers as it does here, and what is wrong is named.

#![allow(clippy::unwrap_used)]

#[path = "support/onnx.rs"]
mod support;

use std::fs;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use support::{Graph, network, whole};
use syncvalue::domain::customer::Day;
use syncvalue::domain::model::given::{self, Given as _};
use syncvalue::domain::model::network::{INPUTS, Layout, OUTPUTS};
use syncvalue::domain::model::serve;
use syncvalue::domain::model::state::ask;
use syncvalue::domain::model::{Member, Model, weeks};
use syncvalue::domain::population::{CLASSES, WEEKS as RATES};
use syncvalue::store::folder::onnx::Onnx;
use syncvalue::store::folder::{CARD, NETWORK, WEIGHTS, load};
use syncvalue::train::predict;
use syncvalue::train::random::Random;

type Week = [f32; INPUTS];

fn member(dilations: &[usize], seed: u64) -> (Member, Random) {
    let (layout, mut random) = (Layout::new(dilations), Random(seed));
    let parameters = (0..layout.len).map(|_| 0.3 * random.uniform()).collect();
    (Member { layout, own: 1.0, parameters }, random)
}

fn near(found: [f32; OUTPUTS], expected: [f32; OUTPUTS]) {
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() <= 2e-5 * b.abs().max(1.0), "{found:?} and {expected:?}");
    }
}

#[test]
fn one_of_our_networks_answers_as_it_does_here() {
    for (dilations, weeks, seed) in [(&[1, 2, 4, 8][..], 32, 1), (&[3, 1], 12, 2), (&[], 1, 3)] {
        let (member, mut random) = member(dilations, seed);
        let onnx = Onnx::read(&network(&member, weeks)).unwrap();
        assert_eq!(onnx.weeks(), weeks);
        let (mut state, mut steps, mut seen) = (vec![0.0; given::state_len(&onnx)], 0, Vec::<Week>::new());
        for week in 1..=weeks + 3 {
            let inputs = std::array::from_fn(|_| 2.0 * random.uniform());
            seen.push(inputs);
            let out = given::peek(&onnx, steps, &state, &inputs).unwrap();
            assert_eq!(out, given::replay(&onnx, &seen).unwrap());
            // Its contract has zeros before the first week and forgets those before the last ones.
            let mut read = vec![[0.0; INPUTS]; weeks.saturating_sub(week)];
            read.extend(&seen[week.saturating_sub(weeks)..]);
            near(out, serve::replay(&member, &read));
            given::advance(&onnx, &mut steps, &mut state, &inputs);
        }
    }
}

/// A linear network, as small as one may be.
fn linear(input: (&str, &[Option<usize>]), output: (&str, &[Option<usize>]), weight: [f32; 2]) -> Vec<u8> {
    let mut graph = Graph::default();
    let weights: Vec<f32> = (0..INPUTS * OUTPUTS).map(|i| weight[i % 2]).collect();
    graph.constant("weight", &[INPUTS, OUTPUTS], &weights);
    graph.op("MatMul", output.0, &[input.0, "weight"], vec![]);
    graph.file(input, output)
}

const IN: [Option<usize>; 3] = [Some(1), Some(6), Some(INPUTS)];
const OUT: [Option<usize>; 3] = [Some(1), Some(6), Some(OUTPUTS)];

#[test]
fn an_output_for_each_week_is_taken_and_so_is_any_batch() {
    let mut weeks = [[0.0; INPUTS]; 6];
    weeks[4] = [9.0; INPUTS];
    weeks[5][3] = 0.5;
    for batch in [Some(1), None] {
        let onnx = Onnx::read(&linear(("weeks", &[batch, IN[1], IN[2]]), ("heads", &[batch, OUT[1], OUT[2]]), [2.0, -1.0])).unwrap();
        assert_eq!(onnx.outputs(&weeks).unwrap(), [1.0, -0.5, 1.0, -0.5, 1.0, -0.5, 1.0, -0.5]);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let told = |file: &[u8]| Onnx::read(file).unwrap_err();
    let good = linear(("weeks", &IN), ("heads", &OUT), [1.0; 2]);
    Onnx::read(&good).unwrap();
    assert!(told(b"no protobuf").starts_with("no ONNX file"), "{}", told(b"no protobuf"));
    assert_eq!(told(b""), "there is no graph in it");
    for cut in [good.len() / 4, good.len() / 2, good.len() - 1] {
        told(&good[..cut]);
    }
    assert_eq!(told(&linear(("x", &IN), ("heads", &OUT), [1.0; 2])), "input: it is named `x`; `weeks` is expected");
    assert_eq!(told(&linear(("weeks", &IN), ("y", &OUT), [1.0; 2])), "output: it is named `y`; `heads` is expected");
    assert_eq!(told(&Graph::default().file(("weeks", &IN), ("heads", &OUT))), "output heads: no operation makes it");
    for (shape, found) in [
        ([Some(2), Some(6), Some(INPUTS)], "[2, 6, 24]"),
        ([Some(1), None, Some(INPUTS)], "[1, any, 24]"),
        ([Some(1), Some(521), Some(INPUTS)], "[1, 521, 24]"),
        ([Some(1), Some(0), Some(INPUTS)], "[1, 0, 24]"),
        ([Some(1), Some(6), Some(23)], "[1, 6, 23]"),
    ] {
        let told = told(&linear(("weeks", &shape), ("heads", &OUT), [1.0; 2]));
        assert_eq!(told, format!("input weeks: shape {found}; [1 or any, 1 to 520, 24] is expected"));
    }
    // What the file says of its output is not believed: it is tried.
    let mut graph = Graph::default();
    graph.op("Identity", "heads", &["weeks"], vec![]);
    let wrong = told(&graph.file(("weeks", &IN), ("heads", &OUT)));
    assert!(wrong.contains("24"), "{wrong}");
    let mut graph = Graph::default();
    graph.op("Cast", "heads", &["weeks"], vec![whole("to", 11)]);
    assert!(!told(&graph.file(("weeks", &IN), ("heads", &OUT))).is_empty());
    let unknown = |mut graph: Graph| {
        graph.op("NoSuchOperation", "heads", &["weeks"], vec![]);
        graph.file(("weeks", &IN), ("heads", &OUT))
    };
    let wrong = told(&unknown(Graph::default()));
    assert!(wrong.starts_with("tract cannot run it") && wrong.contains("NoSuchOperation"), "{wrong}");
}

#[test]
fn what_is_not_finite_is_an_error() {
    let file = linear(("weeks", &IN), ("heads", &OUT), [f32::NAN, 1.0]);
    let wrong = Onnx::read(&file).unwrap_err();
    assert!(wrong.contains("output heads") && wrong.contains("finite numbers are expected"), "{wrong}");
    // One that is finite in the trial, and no more beyond it.
    let onnx = Onnx::read(&linear(("weeks", &IN), ("heads", &OUT), [1e36, 1.0])).unwrap();
    let large = [[3e3; INPUTS]; 6];
    assert!(onnx.outputs(&large).unwrap_err().contains("finite numbers are expected"));
    assert!(onnx.outputs(&[[1.0; INPUTS]; 6]).is_ok());
}

/// A trained folder's card and rates, with a network that was brought along.
fn folder(at: &Path, network: &[u8], card: &[(&str, Value)]) {
    let rates: Vec<u8> = vec![0.01_f64; CLASSES * RATES].iter().flat_map(|x| x.to_le_bytes()).collect();
    let rates = TensorView::new(Dtype::F64, vec![CLASSES, RATES], &rates).unwrap();
    let estimate = json!({"customers": 50, "spend": 3e7, "first_spend": 2e7, "scatter": 1.0});
    let mut whole = json!({"format": "onnx", "horizon_days": 90, "cut": 3, "level": 1.0, "spend_scale": 30.0, "items_scale": 2.0, "estimate": estimate, "trained": {}});
    card.iter().for_each(|(name, value)| whole[*name] = value.clone());
    fs::write(at.join(WEIGHTS), safetensors::serialize([("estimate.rate", rates)], None).unwrap()).unwrap();
    fs::write(at.join(CARD), whole.to_string()).unwrap();
    fs::write(at.join(NETWORK), network).unwrap();
}

#[test]
fn a_folder_is_a_model() {
    let at = tempfile::tempdir().unwrap();
    let (member, _) = member(&[1, 2, 4, 8], 5);
    folder(at.path(), &network(&member, 32), &[]);
    let (model, card) = load(at.path()).unwrap();
    assert!(model.id.starts_with("onnx-") && model.id == card.id, "{}", model.id);
    // Forty weeks of days, more than it reads.
    let days: Vec<Day> = (0..40).map(|week| Day { day: 7 * week + week % 5, items: 2, spend_micros: 20_000_000 }).collect();
    let mut state = None;
    ask(&model, &mut state, &days, 200).unwrap();
    let said = ask(&model, &mut state, &days, 290).unwrap();
    let Model { cut, scales, estimate, table, .. } = &model;
    let inputs = weeks(&days, (290, *cut), scales, (estimate, table), |_, _| ());
    assert!(inputs.len() > 32);
    near(said.outs[0], serve::replay(&member, &inputs[inputs.len() - 32..]));
    let forecast = model.over(table, &said, 290);
    assert!(forecast.mean > 0.0 && forecast.q05 <= forecast.median && forecast.median <= forecast.q95, "{forecast:?}");
    let predicted = predict(&model, &[&days], 290)[0].mean;
    assert!((predicted / forecast.mean - 1.0).abs() < 1e-6, "{predicted} and {}", forecast.mean);

    let other = [("id", json!(model.id)), ("horizon_days", json!(91))];
    folder(at.path(), &network(&member, 32), &other[..1]);
    assert_eq!(load(at.path()).unwrap().0.id, model.id);
    for (card, why) in [
        (&other[..], "and the card is that of onnx-"),
        (&[("format", json!("pickle"))], "format: \"pickle\"; this version reads 3, and \"onnx\""),
        (&[("members", json!([{"dilations": [1], "own": 1.0}]))], "members: 1; 0 to 0 are taken"),
    ] {
        folder(at.path(), &network(&member, 32), card);
        let found = load(at.path()).unwrap_err().to_string();
        assert!(found.contains(why), "{found}");
    }
    folder(at.path(), b"no network", &[]);
    assert!(load(at.path()).unwrap_err().to_string().contains("model.onnx: no ONNX file"));
}
