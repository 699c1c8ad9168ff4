#![allow(clippy::unwrap_used)]

use smallvec::smallvec;

use super::*;
use crate::domain::openrtb::{AssetKind, Dsa, Media, Native, Size};

fn creative(format: leaf::CreativeFormat) -> leaf::Creative {
    leaf::Creative {
        creative: "c1".into(),
        adomain: vec!["shop.acme.example".into()],
        categories: vec!["IAB22-1".into()],
        format: format.into(),
        width: 300,
        height: 250,
        duration_seconds: 15,
        markup: "<a href='${KIKI_CLICK}'>".into(),
        ..Default::default()
    }
}

fn campaign(change: impl FnOnce(&mut leaf::Campaign)) -> Campaign {
    let mut campaign = leaf::Campaign {
        campaign: "spring".into(),
        currency: "USD".into(),
        creatives: vec![creative(leaf::CreativeFormat::Banner)],
        ..Default::default()
    };
    change(&mut campaign);
    Campaign::compile("acme", &campaign, 90).unwrap()
}

fn opportunity() -> Opportunity<'static> {
    Opportunity {
        exchange: "x1",
        platform: "p1",
        country: "DEU",
        shapes: smallvec![Shape::Banner(smallvec![Size { w: 728, h: 90 }, Size { w: 300, h: 250 }])],
        floor_currency: "USD",
        currencies: smallvec!["USD"],
        ..Default::default()
    }
}

fn media(mimes: &[&str], min: u32, max: Option<u32>) -> Media {
    let mimes = mimes.iter().map(ToString::to_string).collect();
    Media { mimes, size: None, min_duration_s: min, max_duration_s: max }
}

#[test]
fn fits_what_it_wants() {
    assert_eq!(campaign(|_| {}).fits(&opportunity()), Some(0));
}

#[test]
fn whose_ad_it_is_has_to_be_told_where_that_is_required() {
    let silent = campaign(|_| {});
    let disclosure = |rendered| leaf::Disclosure { behalf: "Acme".into(), paid: "Acme".into(), rendered };
    let telling = campaign(|campaign| campaign.creatives[0].disclosure = Some(disclosure(false)));
    let asks = |required, publisher_renders| Opportunity { dsa: Dsa { required, publisher_renders }, ..opportunity() };
    for (opportunity, silent_fits, telling_fits) in
        [(asks(1, Some(0)), true, true), (asks(2, None), false, true), (asks(3, Some(2)), false, true), (asks(3, Some(0)), false, false)]
    {
        let fits = (silent.fits(&opportunity).is_some(), telling.fits(&opportunity).is_some());
        assert_eq!(fits, (silent_fits, telling_fits), "{:?}", opportunity.dsa);
    }
    let creative = &telling.creatives[0];
    assert_eq!(creative.disclosed(asks(1, Some(1)).dsa), Some(&disclosure(false)));
    assert_eq!(creative.disclosed(asks(1, Some(0)).dsa), None, "nobody would show it");
}

#[test]
fn a_campaign_keeps_to_its_places() {
    let targeting = |targeting| move |campaign: &mut leaf::Campaign| campaign.targeting = Some(targeting);
    let misfits: Vec<(&str, Campaign)> = vec![
        ("paused", campaign(|c| c.paused = true)),
        ("platform", campaign(|c| c.platforms = vec!["p2".into()])),
        ("exchange", campaign(|c| c.exchanges = vec!["x2".into()])),
        ("currency", campaign(|c| c.currency = "EUR".into())),
        ("country", campaign(targeting(leaf::Targeting { countries: vec!["FRA".into()], ..Default::default() }))),
        ("blocked", campaign(targeting(leaf::Targeting { blocked_countries: vec!["DEU".into()], ..Default::default() }))),
        ("unknown", campaign(targeting(leaf::Targeting { known_customers_only: true, ..Default::default() }))),
    ];
    for (why, campaign) in misfits {
        assert!(campaign.fits(&opportunity()).is_none(), "{why}");
    }
    let without_terms = Campaign { horizon_days: 0, ..campaign(|_| {}) };
    assert!(without_terms.fits(&opportunity()).is_none());
}

#[test]
fn a_publisher_keeps_to_its_advertisers() {
    type Change = fn(&mut Opportunity<'_>);
    let refusals: [(&str, Change); 11] = [
        ("size", |o| o.shapes = smallvec![Shape::Banner(smallvec![Size { w: 300, h: 251 }])]),
        ("no size", |o| o.shapes = smallvec![Shape::Banner(smallvec![])]),
        ("category", |o| o.blocked_categories = vec!["IAB22-1"]),
        ("tier 1", |o| o.blocked_categories = vec!["IAB22"]),
        ("allowed", |o| o.allowed_categories = vec!["IAB2", "IAB22-2"]),
        ("domain", |o| o.blocked_advertisers = vec!["ACME.example"]),
        ("app", |o| o.blocked_apps = vec!["com.rival", "com.acme"]),
        ("seats", |o| o.seats = vec!["globex"]),
        ("blocked seat", |o| o.blocked_seats = vec!["acme"]),
        ("deals", |o| o.deals_only = true),
        ("floor", |o| (o.floor, o.floor_currency) = (Nanos::new(1), "EUR")),
    ];
    for (why, change) in refusals {
        let mut opportunity = opportunity();
        change(&mut opportunity);
        assert!(campaign(|c| c.creatives[0].bundle = "com.acme".into()).fits(&opportunity).is_none(), "{why}");
    }
    let mut others = opportunity();
    others.blocked_apps = vec!["com.acme.other", ""];
    others.blocked_advertisers = vec!["notacme.example", "www.shop.acme.example"];
    others.blocked_categories = vec!["IAB2", "IAB22-2"];
    others.allowed_categories = vec!["IAB1", "IAB22"];
    assert!(campaign(|_| {}).fits(&others).is_some());
}

#[test]
fn insecure_markup_is_not_shown_on_secure_pages() {
    let plain = campaign(|c| c.creatives[0].markup = "<img src='http://a.example'>".into());
    assert!(plain.fits(&opportunity()).is_some());
    let secure = Opportunity { secure: true, ..opportunity() };
    assert!(plain.fits(&secure).is_none());
    assert!(campaign(|_| {}).fits(&secure).is_some());
}

#[test]
fn video_fits_by_type_and_length() {
    let vast = |markup: &str| {
        campaign(|c| {
            c.creatives = vec![creative(leaf::CreativeFormat::Video)];
            c.creatives[0].markup = markup.into();
        })
    };
    let offer = |media: Media| Opportunity { shapes: smallvec![Shape::Video(media)], ..opportunity() };
    let mp4 = vast(r#"<VAST><MediaFile type="video/mp4"/><script type="text/javascript"/></VAST>"#);
    assert!(mp4.fits(&offer(media(&["video/webm", "video/mp4"], 5, Some(15)))).is_some());
    assert!(mp4.fits(&offer(media(&["video/webm"], 5, Some(15)))).is_none());
    assert!(mp4.fits(&offer(media(&["video/mp4"], 16, None))).is_none());
    assert!(mp4.fits(&offer(media(&["video/mp4"], 0, Some(14)))).is_none());
    assert!(mp4.fits(&offer(media(&[], 0, None))).is_none(), "the slot does not say what it plays");
    assert!(vast("<VAST><Wrapper/></VAST>").fits(&offer(media(&["video/webm"], 0, None))).is_some());
    assert!(mp4.fits(&Opportunity { shapes: smallvec![Shape::Audio(media(&["video/mp4"], 0, None))], ..opportunity() }).is_none());
}

#[test]
fn native_has_every_asset_that_is_required() {
    let native = campaign(|c| {
        c.creatives = vec![creative(leaf::CreativeFormat::Native)];
        c.creatives[0].markup = r#"{"native":{"assets":[{"id":1,"title":{"text":"a"}},{"id":2,"img":{}}]}}"#.into();
    });
    let offer = |required| Opportunity { shapes: smallvec![Shape::Native(Native { required })], ..opportunity() };
    assert!(native.fits(&offer(vec![(1, AssetKind::Title)])).is_some());
    assert!(native.fits(&offer(vec![(1, AssetKind::Img)])).is_none());
    assert!(native.fits(&offer(vec![(3, AssetKind::Data)])).is_none());
}

#[test]
fn the_first_creative_that_fits_is_shown() {
    let two = campaign(|c| {
        let mut wide = creative(leaf::CreativeFormat::Banner);
        (wide.creative, wide.width, wide.height) = ("wide".into(), 728, 90);
        c.creatives.insert(0, wide);
    });
    assert_eq!(two.creatives[two.fits(&opportunity()).unwrap()].id, "wide");
}
