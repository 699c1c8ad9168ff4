//! What the network costs to serve: `cargo bench -p syncvalue --bench kernel`. Beside tract, candle and burn: `benches/frameworks`.
//!
//! `base` is what the same code comes to with the vectors that every processor of the target has (SSE2 on x86-64, for which
//! this is built unless somebody says otherwise).

#![allow(missing_docs)]

#[path = "support/ours.rs"]
mod ours;

fn main() {
    ours::all(&ours::Setup::new());
}
