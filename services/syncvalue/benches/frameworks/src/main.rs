//! The network beside tract, candle and burn, in one run: `cargo run --release` in this folder, `cargo test --release` for whether they agree.
//!
//! A crate of its own with a lock file of its own: the product depends on none of it (tract only with its feature `onnx`).

mod beside;
mod burn_net;
mod candle_net;
#[path = "../../../tests/support/onnx.rs"]
mod onnx;
#[path = "../../support/ours.rs"]
mod ours;

fn main() -> Result<(), beside::Error> {
    beside::run()
}
