//! The advertiser of the tests that cross services: its terms, and a banner.

use kiki::leaf;

/// A tenth of what is made above a return of 3.0, on predicted value.
pub(crate) fn terms() -> leaf::Terms {
    leaf::Terms {
        currency: "USD".into(),
        client_name: "Acme".into(),
        baseline_ppm: 3_000_000,
        share_ppm: 100_000,
        basis: leaf::Basis::Predicted.into(),
        netting: leaf::Netting::Client.into(),
        zone: "UTC".into(),
        payment_days: 30,
        horizon_days: 90,
        attribution: leaf::AttributionRule::LastBilledV1.into(),
        lookback_seconds: 7 * 86_400,
        ..Default::default()
    }
}

/// A banner of 300 x 250.
pub(crate) fn banner(id: &str, markup: &str) -> leaf::Creative {
    leaf::Creative {
        creative: id.into(),
        crid: id.into(),
        adomain: vec!["acme.example".into()],
        format: leaf::CreativeFormat::Banner.into(),
        width: 300,
        height: 250,
        markup: markup.into(),
        click_url: "https://acme.example/".into(),
        ..Default::default()
    }
}
