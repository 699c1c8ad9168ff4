//! The rows of the others, beside ours.

use std::hint::black_box;
use std::process::Command;

use syncvalue::domain::model::given::Given as _;
use syncvalue::domain::model::network::INPUTS;
use syncvalue::store::folder::onnx::Onnx;
use syncvalue::train::data::{History, Label};
use syncvalue::train::learn::{Kind, Settings, learn};
use syncvalue::train::random::Random;

use crate::ours::{self, BATCH, DILATIONS, Setup, WEEKS, median, print};
use crate::{burn_net, candle_net, onnx};

/// A batch of training, and the weeks of its histories.
const TRAINED: usize = 128;
const TRAINED_WEEKS: usize = 39;
/// Steps of a whole training of one network, and networks.
const STEPS: f64 = 1_200.0;
const NETWORKS: f64 = 5.0;
/// So small that the weights, and with them the time of a step, stay as they are.
const RATE: f64 = 1e-6;

/// Whatever went wrong.
pub type Error = Box<dyn std::error::Error>;

/// Prints everything, or what the numbers among the arguments ask for: it calls itself.
///
/// # Errors
/// One of them cannot run the network, or the process cannot be started again.
pub fn run() -> Result<(), Error> {
    let setup = Setup::new();
    // Their threads are given to a process when it starts.
    let arguments: Vec<f64> = std::env::args().skip(1).map(|x| x.parse()).collect::<Result<_, _>>()?;
    match arguments[..] {
        [replay, each, step] => return others(&setup, [replay, each, step]),
        [step] => return trainings(&setup, step),
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
        if status.success() { Ok(()) } else { Err(format!("candle and burn: {status}").into()) }
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

/// What candle and burn take, on the threads that they were given.
fn others(setup: &Setup, [replay, each, step]: [f64; 3]) -> Result<(), Error> {
    let (one, many) = (&setup.histories[..1], &setup.histories);
    let print_both = |name: &str, one: f64, many: f64| {
        print(&format!("{name}: a replay of {WEEKS} weeks"), one, &ratio(one, replay));
        print(&format!("{name}: a replay, each of {BATCH}"), many / BATCH as f64, &ratio(many / BATCH as f64, each));
    };
    let (net, one_batch, batch) = (candle_net::Net::of(&setup.member, false)?, candle_net::batch(one)?, candle_net::batch(many)?);
    let [a, b] = [&one_batch, &batch].map(|batch| median(|| drop(black_box(net.last(black_box(batch))))));
    print_both("candle", a, b);
    let net = burn_net::Net::of(&setup.member, false);
    let [a, b] = [net.batch(one), net.batch(many)].map(|batch| median(|| drop(black_box(net.last(black_box(&batch))))));
    print_both("burn", a, b);
    trainings(setup, step)
}

/// A step of training in candle and in burn, on the threads that they were given.
fn trainings(setup: &Setup, ours: f64) -> Result<(), Error> {
    let threads = std::env::var("RAYON_NUM_THREADS")?;
    let print = |name: &str, micros: f64| {
        let what = format!("{name}, {threads} threads: a step of training");
        print(&what, micros, &format!("{}, {}", minutes(micros), ratio(micros, ours)));
    };
    let (mut candle, batch) = (candle_net::Training::new(&setup.member, RATE)?, candle_net::batch(&trained())?);
    candle.step(&batch)?;
    print("candle", median(|| drop(black_box(candle.step(&batch)))));
    let mut burn = burn_net::Training::new(&setup.member, RATE);
    let batch = burn.batch(&trained());
    burn.step(&batch);
    print("burn", median(|| drop(black_box(burn.step(&batch)))));
    Ok(())
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
        let candle = candle_net::Net::of(&setup.member, false).unwrap();
        let candle = candle.last(&candle_net::batch(&setup.histories).unwrap()).unwrap().to_vec2::<f32>().unwrap();
        let burn = burn_net::Net::of(&setup.member, false);
        let burn = burn.last(&burn.batch(&setup.histories)).unwrap();
        let mut largest: f32 = 0.0;
        for ((history, candle), burn) in setup.histories.iter().zip(&candle).zip(burn.chunks(OUTPUTS)) {
            let ours = replay(&setup.member, history);
            near(&tract.outputs(history).unwrap(), &ours);
            near(candle, &ours);
            near(burn, &ours);
            largest = ours.iter().fold(largest, |largest, x| largest.max(x.abs()));
        }
        assert!(largest > 1.0, "the outputs say nothing: none is larger than {largest}");
        assert_eq!(burn.len(), BATCH * OUTPUTS);
    }

    #[test]
    fn candle_and_burn_train_alike() {
        let (setup, trained) = (Setup::new(), trained());
        let squares = trained.iter().flat_map(|history| (1..=TRAINED_WEEKS).flat_map(|weeks| replay(&setup.member, &history[..weeks])));
        let ours = squares.map(|x| f64::from(x * x)).sum::<f64>() / (TRAINED * TRAINED_WEEKS * OUTPUTS) as f64;
        let (rate, steps) = (1e-3, 4);
        let (mut candle, batch) = (candle_net::Training::new(&setup.member, rate).unwrap(), candle_net::batch(&trained).unwrap());
        let candle: Vec<f32> = (0..steps).map(|_| candle.step(&batch).unwrap().to_scalar().unwrap()).collect();
        let mut burn = burn_net::Training::new(&setup.member, rate);
        let batch = burn.batch(&trained);
        let burn: Vec<f32> = (0..steps).map(|_| burn.step(&batch).into_scalar()).collect();
        for (candle, burn) in candle.iter().zip(&burn) {
            assert!((candle - burn).abs() <= 1e-4 * candle, "{candle} and {burn}");
        }
        assert!((f64::from(burn[0]) - ours).abs() <= 1e-4 * ours, "{} and {ours}", burn[0]);
        assert!(burn[3] < 0.99 * burn[0], "{burn:?} hardly falls");
    }
}
