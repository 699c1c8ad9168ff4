//! `kiki evaluate`, `kiki train` and `kiki predict`, as commands on files.

#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

/// 300 customers, a new one every eight hours from 2020-01-01 on; customer i buys 1 + i % 7 times, every 13 days, for 5 + i % 11.
fn events() -> Vec<(u64, String)> {
    let start = jiff::civil::date(2020, 1, 1);
    let days = |i: u64| (0..=i % 7).map(move |n| i / 3 + n * 13 + i % 5);
    let row = |i: u64, day: u64| format!("c{i},{},1,{}.50", start.checked_add(jiff::Span::new().days(day as i64)).unwrap(), 5 + i % 11);
    (0..300).flat_map(|i| days(i).map(move |day| (day, row(i, day)))).collect()
}

fn write(path: &Path, rows: &[(u64, String)]) {
    let rows = rows.iter().fold(String::from("cust,date,items,spend\n"), |mut text, (_, row)| {
        writeln!(text, "{row}").unwrap();
        text
    });
    fs::write(path, rows).unwrap();
}

/// Standard output, or else standard error.
fn kiki(dir: &Path, args: &str) -> Result<String, String> {
    let done = Command::new(env!("CARGO_BIN_EXE_kiki")).args(args.split(' ')).current_dir(dir).output().unwrap();
    if done.status.success() { Ok(String::from_utf8(done.stdout).unwrap()) } else { Err(String::from_utf8(done.stderr).unwrap()) }
}

const EVALUATE: &str = "--start 2020-01-01 --calibration-end 2020-04-29 --horizon-days 60 --split split.csv --seed 3 --steps 20";

#[test]
fn an_evaluation_never_sees_what_came_of_those_it_is_scored_on() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (events, calibration_days) = (events(), 119);
    write(&at("events.csv"), &events);
    let test = |row: &str| row[1..].split_once(',').unwrap().0.parse::<u64>().unwrap() % 2 == 1;
    let blind: Vec<_> = events.iter().filter(|(day, row)| *day < calibration_days || !test(row)).cloned().collect();
    assert!(blind.len() < events.len() - 20);
    write(&at("blind.csv"), &blind);
    let parts = (0..300).map(|i| format!("c{i},{}\n", ["fit", "test", "val", "test"][i % 4]));
    fs::write(at("split.csv"), format!("cust,part\n{}", parts.collect::<String>())).unwrap();

    let said = kiki(dir.path(), &format!("evaluate --events events.csv {EVALUATE} --predictions all.csv")).unwrap();
    for figure in ["spearman", "ngini", "auc", "error by decile", "total accuracy", "at or below q95", "customers who lent nothing"] {
        assert!(said.contains(figure), "{said}");
    }
    kiki(dir.path(), &format!("evaluate --events blind.csv {EVALUATE} --predictions blind-out.csv")).unwrap();
    let (all, blind) = (fs::read_to_string(at("all.csv")).unwrap(), fs::read_to_string(at("blind-out.csv")).unwrap());
    assert_eq!(all, blind);
    assert!(all.starts_with("cust,mean,median,p_active,q05,q95,count\nc0,") && all.lines().count() == 301, "{all}");
    for picture in ["all.calibration.svg", "all.gain.svg"] {
        let svg = fs::read_to_string(at(picture)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("<polyline") && !svg.contains("NaN"), "{svg}");
    }
}

#[test]
fn a_training_that_was_interrupted_goes_on_and_ends_alike() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("events.csv"), &events());
    let train = |out: &str| format!("train --events events.csv --horizon 8w --steps 150 --seed 1 --out {out}");
    assert!(kiki(dir.path(), &train("whole")).unwrap().contains("drnn-"));
    let weights = |folder: &str| fs::read(dir.path().join(folder).join("weights.safetensors")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_kiki"))
        .args(train("cut").split(' '))
        .current_dir(dir.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let first = dir.path().join("cut/training/network-0.safetensors");
    while !first.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it was over before its first network was kept");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    kiki(dir.path(), &train("cut")).unwrap();
    assert_eq!(weights("cut"), weights("whole"));
    let card = |folder: &str| fs::read_to_string(dir.path().join(folder).join("card.json")).unwrap();
    let networks = syncvalue::train::settings().members.len();
    assert_eq!(card("whole").matches("held_out_loss").count(), networks);
    assert!(card("cut").matches("held_out_loss").count() < networks, "it began anew");
    assert!(!first.exists());

    let csv = kiki(dir.path(), "predict --model whole --events events.csv --at 2020-05-01").unwrap();
    assert!(csv.lines().count() > 250 && csv.starts_with("cust,mean"), "{csv}");
    let why = kiki(dir.path(), "predict --model nowhere --events events.csv").unwrap_err();
    assert!(why.contains("nowhere/card.json"), "{why}");
}

#[test]
fn what_is_wrong_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("events.csv"), &events());
    let why = |args: &str| kiki(dir.path(), args).unwrap_err();
    let range = why("evaluate --events events.csv --start 2020-01-01 --calibration-end 2020-01-02 --horizon-days 60 --predictions out.csv");
    assert!(range.contains("--calibration-end 2020-01-02: less than a week after --start"), "{range}");
    fs::write(dir.path().join("split.csv"), "cust,part\nc0,other\n").unwrap();
    let part = why(&format!("evaluate --events events.csv {EVALUATE} --predictions out.csv"));
    assert!(part.contains("split.csv: row 1, part: \"other\" is not fit, val or test"), "{part}");
    let horizon = why("train --events events.csv --horizon 1w2");
    assert!(horizon.contains("is not 7 to 3650 days"), "{horizon}");
    fs::write(dir.path().join("split.csv"), "cust,part\nc0,test\n").unwrap();
    let nobody = why(&format!("evaluate --events events.csv {EVALUATE} --predictions out.csv"));
    assert!(nobody.contains("split.csv: 0 of the 300 customers lend, and both kinds are needed"), "{nobody}");
    let late = kiki(
        dir.path(),
        "evaluate --events events.csv --start 2020-01-01 --calibration-end 2021-01-01 --horizon-days 60 --steps 5 --predictions out.csv",
    )
    .unwrap();
    assert!(late.contains("out.csv is written; nothing was spent afterwards"), "{late}");
    // What stands where an interrupted training would is left alone.
    fs::create_dir_all(dir.path().join("mine/training")).unwrap();
    fs::write(dir.path().join("mine/training/notes.txt"), "mine").unwrap();
    let mine = why("train --events events.csv --steps 5 --out mine");
    assert!(mine.contains("mine/training is there already, and is no interrupted training"), "{mine}");
    assert_eq!(fs::read_to_string(dir.path().join("mine/training/notes.txt")).unwrap(), "mine");
    let mut far = events();
    far.push((0, "c0,0970-01-01,1,5.00".to_owned()));
    write(&dir.path().join("far.csv"), &far);
    assert!(why("train --events far.csv --out model").contains("days from the first to the last; at most 7305 are taken"));
    write(&dir.path().join("few.csv"), &events()[..20]);
    let few = why("train --events few.csv --out model");
    assert!(few.contains("customers came before the cut; a model takes at least 200"), "{few}");
}
