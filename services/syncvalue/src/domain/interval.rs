//! Quantiles of a spend that is often zero: a point mass at 0 and a log-normal with the right mean and variance above it.

/// The `level` quantile of a spend that is positive with the chance `active`, and then has this mean and variance.
#[must_use]
pub fn quantile(level: f64, active: f64, mean: f64, variance: f64) -> f64 {
    // Of the mass above zero, the share below the quantile; without any, the quantile is the zero itself.
    let share = 1.0 - (1.0 - level) / active;
    if !(share > 0.0 && mean > 0.0) {
        return 0.0;
    }
    let log_variance = (variance.max(0.0) / (mean * mean)).ln_1p();
    (mean.ln() - log_variance / 2.0 + log_variance.sqrt() * normal_quantile(share.min(1.0 - 1e-9))).exp()
}

/// The inverse of the standard normal distribution function (P. J. Acklam's rational approximation, error below 1.2e-9).
#[allow(clippy::excessive_precision)]
/// See above.
pub fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e+01,
        2.209460984245205e+02,
        -2.759285104469687e+02,
        1.383577518672690e+02,
        -3.066479806614716e+01,
        2.506628277459239e+00,
    ];
    const B: [f64; 6] =
        [-5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01, -1.328068155288572e+01, 1.0];
    const C: [f64; 6] = [
        -7.784894002430293e-03,
        -3.223964580411365e-01,
        -2.400758277161838e+00,
        -2.549732539343734e+00,
        4.374664141464968e+00,
        2.938163982698783e+00,
    ];
    const D: [f64; 5] = [7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00, 1.0];
    let poly = |terms: &[f64], x: f64| terms.iter().fold(0.0, |sum, term| sum * x + term);
    let tail = |p: f64| {
        let q = (-2.0 * p.ln()).sqrt();
        poly(&C, q) / poly(&D, q)
    };
    match p {
        p if p < 0.02425 => tail(p),
        p if p > 1.0 - 0.02425 => -tail(1.0 - p),
        p => {
            let q = p - 0.5;
            poly(&A, q * q) * q / poly(&B, q * q)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_tables_of_the_normal_distribution() {
        for (p, z) in [(0.5, 0.0), (0.95, 1.644_853_627), (0.975, 1.959_963_985), (0.001, -3.090_232_306), (0.999_9, 3.719_016_485)] {
            assert!((normal_quantile(p) - z).abs() < 1e-7, "{p}: {}", normal_quantile(p));
        }
    }

    #[test]
    fn is_zero_where_the_zeroes_reach() {
        assert_eq!(quantile(0.05, 0.9, 10.0, 4.0), 0.0);
        assert_eq!(quantile(0.95, 0.04, 10.0, 4.0), 0.0);
        assert_eq!(quantile(0.95, 0.0, 0.0, 0.0), 0.0);
        assert!(quantile(0.95, 0.06, 10.0, 4.0) > 0.0);
    }

    #[test]
    fn without_variance_is_the_mean() {
        assert!((quantile(0.95, 1.0, 10.0, 0.0) - 10.0).abs() < 1e-9);
    }
}
