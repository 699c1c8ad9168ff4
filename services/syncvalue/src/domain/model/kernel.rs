//! The loops of the network, written so that a compiler turns them into vector instructions.
//!
//! Which instructions there are is found out while running ([`Vectors`]); every loop below is inlined into the one call that was compiled
//! for them. With `FUSED` a product is added in one rounding (FMA), without it in two: the two differ in the last bits.
//!
//! The approximations of exp, sigmoid and tanh are the same in training and in serving, so that they cost no accuracy:
//! the model is trained with them.

/// Runs a closure with the vector instructions that the processor has.
#[derive(Debug, Clone, Copy)]
pub enum Vectors {
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    V3(pulp::x86::V3),
    /// What every processor of the target has.
    Base,
}

/// Something to be run with the best instructions there are: `run::<true>` where products are fused.
pub trait Work {
    /// What it comes to.
    type Output;
    /// Does it. Has to be inlined, with all that it calls.
    fn run<const FUSED: bool>(self) -> Self::Output;
}

struct Fused<W>(W);

impl<W: Work> pulp::NullaryFnOnce for Fused<W> {
    type Output = W::Output;

    #[inline(always)]
    fn call(self) -> W::Output {
        self.0.run::<true>()
    }
}

impl Vectors {
    /// What this processor has.
    #[must_use]
    pub fn here() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(v3) = pulp::x86::V3::try_new() {
            return Self::V3(v3);
        }
        Self::Base
    }

    /// Does the work.
    #[inline]
    pub fn run<W: Work>(self, work: W) -> W::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::V3(v3) => v3.vectorize(Fused(work)),
            // Elsewhere than on x86-64 fused products are part of the base.
            Self::Base if cfg!(target_arch = "aarch64") => work.run::<true>(),
            Self::Base => work.run::<false>(),
        }
    }
}

/// a x b + c.
#[inline(always)]
#[must_use]
pub fn fma<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `out += x W`, with `W` in rows of `N`: one row for each of `x`.
#[inline(always)]
pub fn add_product<const FUSED: bool, const N: usize>(out: &mut [f32; N], x: &[f32], weights: &[f32]) {
    let (rows, rest) = weights.as_chunks::<N>();
    debug_assert!(rest.is_empty() && rows.len() == x.len());
    let mut sums = *out;
    for (x, row) in x.iter().zip(rows) {
        for j in 0..N {
            sums[j] = fma::<FUSED>(*x, row[j], sums[j]);
        }
    }
    *out = sums;
}

/// e^x, to about 2e-7 relative, for x in [-87, 88]; beyond that the value at the end.
///
/// 2^(x log2 e) = 2^n 2^f with f in [-1/2, 1/2]; a polynomial for 2^f (Taylor, seven terms), and n goes into the exponent.
#[inline(always)]
#[must_use]
pub fn exp<const FUSED: bool>(x: f32) -> f32 {
    let y = x.clamp(-87.0, 88.0) * std::f32::consts::LOG2_E;
    // Rounds to the next integer: the sum has no room for a fraction.
    let shifted = y + 12_582_912.0;
    let n = shifted - 12_582_912.0;
    let f = (y - n) * std::f32::consts::LN_2;
    let mut sum = 1.0 / 5_040.0;
    for term in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = fma::<FUSED>(sum, f, term);
    }
    let power = f32::from_bits(((shifted.to_bits() as i32).wrapping_sub(0x4B40_0000).wrapping_add(127) as u32) << 23);
    sum * power
}

/// 1 / (1 + e^-x).
#[inline(always)]
#[must_use]
pub fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// tanh x = 2 sigmoid(2x) - 1.
#[inline(always)]
#[must_use]
pub fn tanh<const FUSED: bool>(x: f32) -> f32 {
    2.0 / (1.0 + exp::<FUSED>(-2.0 * x)) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_approximations_are_near() {
        for i in -8_000..=8_000 {
            let x = i as f32 / 100.0;
            let (near, exact) = (f64::from(exp::<true>(x)), f64::from(x).exp());
            assert!((near / exact - 1.0).abs() < 4e-6, "{x}: {near} {exact}");
            assert!((f64::from(tanh::<false>(x)) - f64::from(x).tanh()).abs() < 1e-6, "{x}");
            assert!((f64::from(sigmoid::<true>(x)) - 1.0 / (1.0 + (-f64::from(x)).exp())).abs() < 1e-6, "{x}");
        }
        assert!(exp::<true>(f32::INFINITY).is_finite() && exp::<true>(f32::NEG_INFINITY) > 0.0);
    }
}
