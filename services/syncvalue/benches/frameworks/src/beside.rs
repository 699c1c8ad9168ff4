//! The rows of the others, beside ours.

use std::hint::black_box;
use std::process::Command;

use candle_core::{Device, Tensor};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use syncvalue::domain::model::given::Given as _;
use syncvalue::domain::model::network::INPUTS;
use syncvalue::store::folder::onnx::Onnx;
use syncvalue::train::data::{History, Label};
use syncvalue::train::learn::{Kind, Settings, learn};
use syncvalue::train::random::Random;

use crate::net::Net;
use crate::onnx;
use crate::ours::{self, BATCH, DILATIONS, Setup, WEEKS, median, print};

/// A batch of training, and the weeks of its histories.
const TRAINED: usize = 128;
const TRAINED_WEEKS: usize = 39;
/// Steps of a whole training of one network, and networks.
const STEPS: f64 = 1_200.0;
const NETWORKS: f64 = 5.0;

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error>;

/// Prints everything, or what the numbers among the arguments ask for: it calls itself.
///
/// # Errors
/// tract or candle cannot run the network, or the process cannot be started again.
pub fn run() -> Result<(), Error> {
    let setup = Setup::new();
    // candle's threads are given to a process when it starts.
    let arguments: Vec<f64> = std::env::args().skip(1).map(|x| x.parse()).collect::<Result<_, _>>()?;
    match arguments[..] {
        [replay, each, step] => return candle(&setup, [replay, each, step]),
        [step] => return candle_training(&setup, step),
        _ => {}
    }
    let ours = ours::all(&setup);
    let tract = Onnx::read(&onnx::network(&setup.member, WEEKS))?;
    let micros = median(|| drop(black_box(tract.outputs(black_box(&setup.histories[0])))));
    print(&format!("tract: a replay of {WEEKS} weeks"), micros, &ratio(micros, ours.replay));
    let step = training();
    print(&format!("ours: a step of training, {TRAINED} x {TRAINED_WEEKS} weeks"), step, &minutes(step));
    let child = |threads: &str, arguments: &[f64]| -> Result<(), Error> {
        let mut child = Command::new(std::env::current_exe()?);
        let status = child.args(arguments.iter().map(f64::to_string)).env("RAYON_NUM_THREADS", threads).status()?;
        if status.success() { Ok(()) } else { Err(format!("candle: {status}").into()) }
    };
    child("1", &[ours.replay, ours.each, step])?;
    child(&std::thread::available_parallelism()?.to_string(), &[step])
}

fn ratio(micros: f64, ours: f64) -> String {
    format!("{:.1} times ours", micros / ours)
}

fn minutes(micros: f64) -> String {
    format!("{:.1} minutes for {NETWORKS} networks of {STEPS} steps", micros * STEPS * NETWORKS / 6e7)
}

fn candle(setup: &Setup, [replay, each, step]: [f64; 3]) -> Result<(), Error> {
    let net = Net::of(&setup.member, false)?;
    let one = batch(&setup.histories[..1])?;
    let micros = median(|| drop(black_box(net.last(black_box(&one)))));
    print(&format!("candle: a replay of {WEEKS} weeks"), micros, &ratio(micros, replay));
    let many = batch(&setup.histories)?;
    let micros = median(|| drop(black_box(net.last(black_box(&many))))) / BATCH as f64;
    print(&format!("candle: a replay, each of {BATCH}"), micros, &ratio(micros, each));
    candle_training(setup, step)
}

fn batch(histories: &[Vec<[f32; INPUTS]>]) -> Result<Tensor, candle_core::Error> {
    let numbers: Vec<f32> = histories.iter().flat_map(|weeks| weeks.as_flattened()).copied().collect();
    Tensor::from_vec(numbers, (histories.len(), histories[0].len(), INPUTS), &Device::Cpu)
}

fn trained() -> Vec<Vec<[f32; INPUTS]>> {
    let mut random = Random(9);
    let mut history = || (0..TRAINED_WEEKS).map(|_| std::array::from_fn(|_| random.uniform())).collect();
    (0..TRAINED).map(|_| history()).collect()
}

/// Microseconds of a step of our training on all cores: a batch forward, back, and AdamW.
fn training() -> f64 {
    let label = |step| Label { step, spend: 1.0, count: 1.0, expected: [1.0, 1.0, 0.5], typical: [1.0, 1.0, 0.5], weight: 0.3 };
    let labels: Vec<_> = (8..TRAINED_WEEKS).step_by(2).map(label).collect();
    let fit: Vec<_> = trained().into_iter().map(|inputs| History { inputs, labels: labels.clone(), expected: [1.0; 3] }).collect();
    let fit: Vec<&History> = fit.iter().collect();
    let kind = Kind { dilations: DILATIONS.into(), own: 1.0 };
    let steps = 10;
    let settings = Settings { members: vec![kind.clone()], steps, batch: TRAINED, rate: 0.003, decay: 0.2, checks: 1, patience: 5 };
    median(|| drop(black_box(learn((&fit, &fit[..1]), &kind, &settings, 1, |_| ())))) / steps as f64
}

/// The same in candle, on the threads that it was given.
fn candle_training(setup: &Setup, ours: f64) -> Result<(), Error> {
    let net = Net::of(&setup.member, true)?;
    let inputs = batch(&trained())?;
    let mut adam = AdamW::new(net.vars(), ParamsAdamW { lr: 1e-6, ..Default::default() })?;
    let mut step = || -> Result<(), candle_core::Error> {
        let loss = net.outputs(&inputs)?.sqr()?.mean_all()?;
        adam.backward_step(&loss)
    };
    step()?;
    let micros = median(|| drop(black_box(step())));
    let what = format!("candle, {} threads: a step of training", std::env::var("RAYON_NUM_THREADS")?);
    print(&what, micros, &format!("{}, {}", minutes(micros), ratio(micros, ours)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncvalue::domain::model::network::OUTPUTS;
    use syncvalue::domain::model::serve::replay;

    /// The most that any output may differ by, of outputs as large as 1 and more: the approximations of exp and the order of sums.
    const TOLERANCE: f32 = 2e-5;

    fn near(found: &[f32], expected: &[f32; OUTPUTS]) {
        assert_eq!(found.len(), OUTPUTS);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() <= TOLERANCE * expected.abs().max(1.0), "{found} and {expected}");
        }
    }

    #[test]
    fn they_agree() {
        let setup = Setup::new();
        let tract = Onnx::read(&onnx::network(&setup.member, WEEKS)).unwrap();
        let candle = Net::of(&setup.member, false).unwrap().last(&batch(&setup.histories).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        let mut largest: f32 = 0.0;
        for (history, candle) in setup.histories.iter().zip(&candle) {
            let ours = replay(&setup.member, history);
            near(&tract.outputs(history).unwrap(), &ours);
            near(candle, &ours);
            largest = ours.iter().fold(largest, |largest, x| largest.max(x.abs()));
        }
        assert!(largest > 1.0, "the outputs say nothing: none is larger than {largest}");
    }
}
