//! The model that answers where none is given: trained here, on customers like those who are asked about.

use std::path::{Path, PathBuf};

use kiki::clock::Clock;
use syncvalue::domain::customer::day_of;
use syncvalue::store::folder::{self, Note};
use syncvalue::train::data::{Log, Protocol, buyers};
use syncvalue::train::learn::Settings;
use syncvalue::train::{Prepared, settings};

use crate::bench::{customers, value};
use crate::error::{Doing as _, Failure};

/// Customers that it learns from, and the steps of each network: seconds. It costs as much to ask as one that learnt for minutes;
/// how well it predicts is of no concern here.
const CUSTOMERS: u64 = 300;
const STEPS: usize = 20;

/// Trains it, and writes it to a folder below `scratch`.
pub(super) fn train(scratch: &Path) -> Result<PathBuf, Failure> {
    let now = Clock::System.now();
    let cut = day_of(now) + 1;
    let protocol = Protocol { start: cut - 366, cut, horizon_days: value::HORIZON_DAYS };
    let log: Log = (0..CUSTOMERS).map(|number| (customers::customer(number), customers::days(number, now))).collect();
    let buyers = buyers(&log, &protocol, |_| false);
    let prepared = Prepared::new(&buyers, &protocol, Settings { steps: STEPS, ..settings() }, 0).doing("training a model")?;
    let networks = (0..prepared.kinds().len()).map(|network| prepared.member(network, |_| ()).member);
    let path = scratch.join("model");
    let card = serde_json::json!({ "customers": CUSTOMERS, "steps": STEPS });
    let note = Note { trained: card, ..Note::default() };
    folder::save(&prepared.model(networks.collect()), note, &path).doing("writing a model")?;
    Ok(path)
}
