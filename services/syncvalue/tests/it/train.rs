//! Training: what it may see, that it is repeatable, that it learns, and its folder.

use std::fs;

use syncvalue::domain::customer::Day;
use syncvalue::domain::model::Forecast;
use syncvalue::store::folder::{self, Note};
use syncvalue::train::data::{Log, Protocol, buyers};
use syncvalue::train::learn::Settings;
use syncvalue::train::random::Random;
use syncvalue::train::{Error, Prepared, predict, settings};

const PROTOCOL: Protocol = Protocol { start: 10_000, cut: 10_000 + 20 * 7, horizon_days: 10 * 7 };

/// A shop of customers who come in the first ten weeks; every third is a regular who buys every two weeks, every sixth of those for
/// ten times as much; the others never come back.
fn shop(customers: u64) -> Log {
    let mut random = Random(3);
    let customer = |i: u64| {
        let first = PROTOCOL.start + (random.bits() % 70) as i64;
        let spend_micros = if i.is_multiple_of(6) { 100_000_000 } else { 10_000_000 };
        let day = |day| Day { day, items: 1, spend_micros };
        let times = if i.is_multiple_of(3) { 20 } else { 1 };
        (format!("c{i}"), (0..times).map(|n| day(first + n * 14 + (random.bits() % 5) as i64)).collect())
    };
    (0..customers).map(customer).collect()
}

/// Even customers lend what came after the cut.
fn lends(id: &str) -> bool {
    id[1..].parse::<u64>().unwrap().is_multiple_of(2)
}

fn quick() -> Settings {
    Settings { steps: 60, batch: 32, checks: 3, ..settings() }
}

fn forecasts(log: &Log, seed: u64) -> Vec<(String, Forecast)> {
    let buyers = buyers(log, &PROTOCOL, lends);
    let prepared = Prepared::new(&buyers, &PROTOCOL, quick(), seed).unwrap();
    let model = prepared.model((0..2).map(|member| prepared.member(member, |_| ()).member).collect());
    buyers.into_iter().map(|buyer| buyer.id).zip(prepared.forecasts(&model)).collect()
}

#[test]
fn what_came_of_the_customers_who_are_predicted_is_never_seen() {
    let log = shop(240);
    let mut blind = log.clone();
    for (id, days) in &mut blind {
        days.retain(|day| lends(id) || day.day < PROTOCOL.cut);
    }
    assert_ne!(log, blind);
    assert_eq!(forecasts(&log, 1), forecasts(&blind, 1));
    // And the lenders' is.
    for days in blind.values_mut() {
        days.retain(|day| day.day < PROTOCOL.cut);
    }
    assert_ne!(forecasts(&log, 1), forecasts(&blind, 1));
}

#[test]
fn one_seed_gives_one_model_and_another_another() {
    let log = shop(240);
    assert_eq!(forecasts(&log, 1), forecasts(&log, 1));
    assert_ne!(forecasts(&log, 1), forecasts(&log, 2));
}

#[test]
fn it_learns_who_comes_back() {
    let log = shop(600);
    let found = forecasts(&log, 1);
    let mean = |which: fn(u64) -> bool| {
        let of = found.iter().filter(|(id, _)| which(id[1..].parse().unwrap()));
        let means: Vec<f64> = of.map(|(_, forecast)| forecast.mean).collect();
        means.iter().sum::<f64>() / means.len() as f64
    };
    let (gone, regular, rich) = (mean(|i| i % 3 != 0), mean(|i| i % 6 == 3), mean(|i| i % 6 == 0));
    // Truly 0, 50 and 500.
    assert!(gone < 15.0 && (25.0..90.0).contains(&regular) && (300.0..800.0).contains(&rich), "{gone} {regular} {rich}");
    for (id, f) in &found {
        let ordered = 0.0 <= f.q05 && f.q05 <= f.median && f.median <= f.q95 && f.mean >= 0.0 && (0.0..=1.0).contains(&f.active);
        assert!(ordered && f.q95.is_finite() && f.mean.is_finite() && f.count >= 0.0, "{id}: {f:?}");
    }
}

#[test]
fn a_folder_keeps_a_model_and_refuses_what_is_none() {
    let log = shop(240);
    let buyers = buyers(&log, &PROTOCOL, |_| false);
    let prepared = Prepared::new(&buyers, &PROTOCOL, quick(), 1).unwrap();
    let model = prepared.model(vec![prepared.member(0, |_| ()).member]);
    let dir = tempfile::tempdir().unwrap();
    let card = folder::save(&model, Note { inputs: prepared.spreads(), ..Note::default() }, dir.path()).unwrap();
    let (kept, card_again) = folder::load(dir.path()).unwrap();
    assert_eq!((&kept.members, &kept.id, card_again), (&model.members, &model.id, card));
    let days: Vec<&[Day]> = buyers.iter().map(|buyer| &*buyer.days).collect();
    assert_eq!(predict(&kept, &days, PROTOCOL.cut), prepared.forecasts(&model));

    let spoil = |file: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let path = dir.path().join(file);
        let good = fs::read(&path).unwrap();
        fs::write(&path, change(good.clone())).unwrap();
        let why = folder::load(dir.path()).unwrap_err().to_string();
        fs::write(&path, good).unwrap();
        why
    };
    let other = spoil(folder::WEIGHTS, &|mut bytes| {
        // A safetensors file: the header's length in 8 bytes, the header, the numbers.
        let header = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
        let tensors: serde_json::Value = serde_json::from_slice(&bytes[8..header]).unwrap();
        bytes[header + tensors["0.heads.weight"]["data_offsets"][0].as_u64().unwrap() as usize] ^= 1;
        bytes
    });
    assert!(other.contains("the card is that of"), "{other}");
    assert!(spoil(folder::WEIGHTS, &|bytes| bytes[..bytes.len() / 2].to_vec()).contains(folder::WEIGHTS));
    let format = spoil(folder::CARD, &|bytes| {
        let card = String::from_utf8(bytes).unwrap();
        card.replace(&format!("\"format\": {}", folder::FORMAT), "\"format\": 9").into_bytes()
    });
    assert!(format.contains(&format!("format: 9; this version reads {}", folder::FORMAT)), "{format}");
    let slope = spoil(folder::CARD, &|bytes| {
        let card = String::from_utf8(bytes).unwrap();
        card.replace(&format!("\"slope\": {:?}", model.slope), "\"slope\": 1000.0").into_bytes()
    });
    assert!(slope.contains("slope: 1000; 0.7 to 1.4"), "{slope}");
    assert!(folder::load(&dir.path().join("none")).unwrap_err().to_string().contains("card.json"));
}

#[test]
fn too_little_is_said_to_be_too_little() {
    let few = buyers(&shop(20), &PROTOCOL, |_| false);
    assert_eq!(Prepared::new(&few, &PROTOCOL, quick(), 1).err(), Some(Error::TooFew(20)));
    let mut log = shop(240);
    log.values_mut().flatten().for_each(|day| day.spend_micros = 0);
    assert_eq!(Prepared::new(&buyers(&log, &PROTOCOL, |_| false), &PROTOCOL, quick(), 1).err(), Some(Error::NoSpend));
    let short = Protocol { cut: PROTOCOL.start + 60, ..PROTOCOL };
    assert_eq!(Prepared::new(&buyers(&shop(600), &short, |_| false), &short, quick(), 1).err(), Some(Error::NoLabels));
}
