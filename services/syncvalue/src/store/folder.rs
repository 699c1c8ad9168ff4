//! A model as a folder: `weights.safetensors` (its networks' tensors in 32 bits as `MEMBER.TENSOR`, and `estimate.rate` in 64) and
//! `card.json` (what it is, what it was trained on, what it was worth). Small: 0.3 MB for the twelve networks of a training.
//!
//! A network that was brought along stands as `model.onnx` in a folder whose card has the format "onnx" and no members; the rest is that of a
//! trained folder, with `weights.safetensors` for the estimate's rates.
//!
//! Everything is checked when it is read: every tensor is there with its shape and finite, and the id is that of the weights.

#[cfg(feature = "onnx")]
pub mod onnx;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::domain::drift::Spread;
use crate::domain::fit::{Fit, Numbers, Table};
use crate::domain::model::features::Scales;
use crate::domain::model::given::Given;
use crate::domain::model::network::{INPUTS, Layout};
use crate::domain::model::{LEAST_SLOPE, MOST_SLOPE, Member, Model};
use crate::domain::population::{CLASSES, WEEKS};
use crate::domain::predictor::MAX_HORIZON_DAYS;
use crate::train::learn::Kind;

/// The form of the folder; one that is read has to have it.
pub const FORMAT: u32 = 4;
/// The form of a folder with a network that was brought along.
pub const ONNX: &str = "onnx";
/// The file of such a network.
pub const NETWORK: &str = "model.onnx";
/// The file of weights.
pub const WEIGHTS: &str = "weights.safetensors";
/// The file that says what it is.
pub const CARD: &str = "card.json";
/// Longest files that are read: far more than any model of this form has.
const MAX_BYTES: u64 = 64 << 20;
/// Networks of a model and layers of a network, at most.
const MAX_PARTS: usize = 16;
/// Days from 1970 to the year 9999.
const MAX_DAY: i64 = 2_932_896;

/// Why a model cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system's.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: std::io::Error,
    },
    /// A file that is no model's.
    #[error("{}: {why}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What a model is and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// [`FORMAT`] or [`ONNX`].
    pub format: Format,
    /// The model's id, made from its weights. May be left out with [`ONNX`].
    #[serde(default)]
    pub id: String,
    /// Days that it predicts.
    pub horizon_days: u32,
    /// ISO 4217: the currency that it was trained in, and answers for alone; none: any.
    #[serde(default)]
    pub currency: Option<String>,
    /// The first day that it was not trained on, since 1970; a week begins on it.
    pub cut: i64,
    /// The networks that answer together; none with [`ONNX`].
    #[serde(default)]
    pub members: Vec<Kind>,
    /// What makes their totals right, see [`Model::level`].
    pub level: f64,
    /// What makes them as far apart as what came was, see [`Model::slope`].
    #[serde(default = "one")]
    pub slope: f64,
    /// Mean spend of a purchase day, currency units.
    pub spend_scale: f64,
    /// Mean items of a purchase day.
    pub items_scale: f64,
    /// The estimate's numbers, but for its rates.
    pub estimate: Estimate,
    /// How each number that it reads was spread over those that it was trained on; empty: not known.
    #[serde(default)]
    pub inputs: Vec<Spread>,
    /// What it was trained on, and how: for the reader.
    pub trained: serde_json::Value,
}

fn one() -> f64 {
    1.0
}

/// What a card says beside the model itself.
#[derive(Debug, Clone, Default)]
pub struct Note {
    /// See [`Card::currency`].
    pub currency: Option<String>,
    /// See [`Card::inputs`].
    pub inputs: Vec<Spread>,
    /// See [`Card::trained`].
    pub trained: serde_json::Value,
}

/// The form of a folder, as its card has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Format {
    /// Of networks that were trained here.
    Number(u32),
    /// Of another kind.
    Name(String),
}

impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// The estimate's numbers, see [`Numbers`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Customers that it rests on.
    pub customers: u64,
    /// Mean net spend of a purchase day, micros.
    pub spend: f64,
    /// Mean of first purchases, micros.
    pub first_spend: f64,
    /// Scatter of day spends.
    pub scatter: f64,
}

struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl View for Tensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// The tensors of some networks, as safetensors.
fn encoded(members: &[Member], rate: &[f64]) -> Result<Vec<u8>, String> {
    let mut tensors = BTreeMap::new();
    for (member, Member { layout, parameters, .. }) in members.iter().enumerate() {
        for (name, at, [rows, columns]) in layout.tensors() {
            let bytes = parameters[at..at + rows * columns].iter().flat_map(|x| x.to_le_bytes()).collect();
            tensors.insert(format!("{member}.{name}"), Tensor { dtype: Dtype::F32, shape: vec![rows, columns], bytes });
        }
    }
    if !rate.is_empty() {
        let bytes = rate.iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.insert("estimate.rate".into(), Tensor { dtype: Dtype::F64, shape: vec![CLASSES, WEEKS], bytes });
    }
    safetensors::serialize(tensors, None).map_err(|e| e.to_string())
}

fn kind(member: &Member) -> Kind {
    Kind { dilations: member.layout.layers.iter().map(|layer| layer.dilation).collect(), own: member.own }
}

fn tensor<'a>(file: &SafeTensors<'a>, name: &str, dtype: Dtype, shape: [usize; 2]) -> Result<&'a [u8], String> {
    let found = file.tensor(name).map_err(|e| format!("{name}: {e}"))?;
    if found.dtype() != dtype || found.shape() != shape {
        return Err(format!("{name}: {:?} {:?}, and {dtype:?} {shape:?} is meant", found.dtype(), found.shape()));
    }
    Ok(found.data())
}

fn member(file: &SafeTensors<'_>, kind: &Kind, member: usize) -> Result<Member, String> {
    let layout = Layout::new(&kind.dilations);
    let mut p = vec![0.0; layout.len];
    for (name, at, shape) in layout.tensors() {
        let name = format!("{member}.{name}");
        let bytes = tensor(file, &name, Dtype::F32, shape)?;
        for (p, bytes) in p[at..].iter_mut().zip(bytes.as_chunks().0) {
            *p = f32::from_le_bytes(*bytes);
            if !p.is_finite() {
                return Err(format!("{name}: {p} is no weight"));
            }
        }
    }
    Ok(Member { layout, own: kind.own, parameters: p })
}

/// Writes a model; files that are there are replaced, the card last.
///
/// # Errors
/// The file system's.
pub fn save(model: &Model, note: Note, folder: &Path) -> Result<Card, Error> {
    let Note { currency, inputs, trained } = note;
    let Numbers { rate, customers, spend, first_spend, scatter } = model.estimate.numbers();
    let card = Card {
        format: Format::Number(FORMAT),
        id: model.id.clone(),
        horizon_days: model.horizon_days,
        currency,
        cut: model.cut,
        members: model.members.iter().map(kind).collect(),
        level: model.level,
        slope: model.slope,
        spend_scale: model.scales.spend,
        items_scale: model.scales.items,
        estimate: Estimate { customers, spend, first_spend, scatter },
        inputs,
        trained,
    };
    std::fs::create_dir_all(folder).map_err(|error| Error::Io { path: folder.into(), error })?;
    let wrong = |file: &str| {
        let path = folder.join(file);
        move |why| Error::Wrong { path, why }
    };
    write(&folder.join(WEIGHTS), &encoded(&model.members, &rate).map_err(wrong(WEIGHTS))?)?;
    let text = serde_json::to_vec_pretty(&card).map_err(|e| wrong(CARD)(e.to_string()))?;
    write(&folder.join(CARD), &text)?;
    Ok(card)
}

/// Whole or not at all, so that no reader finds half of it.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let io = |error| Error::Io { path: path.into(), error };
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).map_err(io)?;
    std::fs::rename(&new, path).map_err(io)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |error| Error::Io { path: path.into(), error };
    let size = std::fs::metadata(path).map_err(io)?.len();
    if size > MAX_BYTES {
        return Err(Error::Wrong { path: path.into(), why: format!("{size} bytes; at most {MAX_BYTES} are read") });
    }
    std::fs::read(path).map_err(io)
}

/// Reads a model.
///
/// # Errors
/// The file system's, or what is wrong with which file.
pub fn load(folder: &Path) -> Result<(Model, Card), Error> {
    let (weights, card) = (folder.join(WEIGHTS), folder.join(CARD));
    let mut found: Card = serde_json::from_slice(&read(&card)?).map_err(|e| Error::Wrong { path: card.clone(), why: e.to_string() })?;
    check(&found).map_err(|why| Error::Wrong { path: card, why })?;
    let given = if found.format == Format::Number(FORMAT) { None } else { Some(brought(&folder.join(NETWORK), &mut found)?) };
    let model = decode(&read(&weights)?, &found, given).map_err(|why| Error::Wrong { path: weights, why })?;
    Ok((model, found))
}

/// A network that was brought along. Its id, the first 48 bits of the SHA-256 of its file and the horizon, is put into the card.
#[cfg(feature = "onnx")]
fn brought(path: &Path, card: &mut Card) -> Result<Arc<dyn Given>, Error> {
    use sha2::{Digest as _, Sha256};

    let file = read(path)?;
    let wrong = |why| Error::Wrong { path: path.into(), why };
    let digest = Sha256::new().chain_update(&file).chain_update(card.horizon_days.to_le_bytes()).finalize();
    let id = format!("onnx-{}", hex::encode(&digest[..6]));
    if !card.id.is_empty() && card.id != id {
        return Err(wrong(format!("this is the network of {id}, and the card is that of {}", card.id)));
    }
    card.id = id;
    Ok(Arc::new(onnx::Onnx::read(&file).map_err(wrong)?))
}

#[cfg(not(feature = "onnx"))]
fn brought(path: &Path, _: &mut Card) -> Result<Arc<dyn Given>, Error> {
    let why = "networks in ONNX are read where SyncValue was built with its feature `onnx`".into();
    Err(Error::Wrong { path: path.into(), why })
}

fn check(card: &Card) -> Result<(), String> {
    let (least, most) = match &card.format {
        Format::Number(FORMAT) => (1, MAX_PARTS),
        Format::Name(name) if name == ONNX => (0, 0),
        other => return Err(format!("format: {other}; this version reads {FORMAT}, and \"{ONNX}\"")),
    };
    if !(1..=MAX_HORIZON_DAYS).contains(&card.horizon_days) {
        return Err(format!("horizon_days: {}; 1 to {MAX_HORIZON_DAYS} are predicted", card.horizon_days));
    }
    if !(least..=most).contains(&card.members.len()) {
        return Err(format!("members: {}; {least} to {most} are taken", card.members.len()));
    }
    for (i, Kind { dilations, own }) in card.members.iter().enumerate() {
        if dilations.len() > MAX_PARTS || dilations.iter().any(|dilation| !(0..=64).contains(dilation)) {
            return Err(format!("members[{i}].dilations: {dilations:?}; at most {MAX_PARTS} of 0 to 64"));
        }
        if !(0.0..=1.0).contains(own) {
            return Err(format!("members[{i}].own: {own}; 0 to 1"));
        }
    }
    if !(-MAX_DAY..=MAX_DAY).contains(&card.cut) {
        return Err(format!("cut: {}; {MAX_DAY} days from 1970 at most", card.cut));
    }
    if !(card.inputs.is_empty() || card.inputs.len() == INPUTS) || !card.inputs.iter().all(Spread::is_sound) {
        return Err(format!("inputs: {INPUTS} spreads of edges in order and one share more are meant"));
    }
    if !(LEAST_SLOPE..=MOST_SLOPE).contains(&card.slope) {
        return Err(format!("slope: {}; {LEAST_SLOPE} to {MOST_SLOPE}", card.slope));
    }
    let scales = [card.spend_scale, card.items_scale, card.level];
    if scales.iter().any(|scale| !scale.is_finite() || *scale <= 0.0) {
        return Err(format!("spend_scale, items_scale, level: {scales:?}; each above 0"));
    }
    Ok(())
}

fn decode(bytes: &[u8], card: &Card, given: Option<Arc<dyn Given>>) -> Result<Model, String> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
    let members = card.members.iter().enumerate().map(|(i, kind)| member(&file, kind, i)).collect::<Result<Vec<_>, _>>()?;
    let rate = tensor(&file, "estimate.rate", Dtype::F64, [CLASSES, WEEKS])?;
    let rate = rate.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let Estimate { customers, spend, first_spend, scatter } = card.estimate;
    let estimate = Fit::from_numbers(&Numbers { rate, customers, spend, first_spend, scatter }).ok_or("estimate: absurd numbers")?;
    let table = Table::of(&estimate, card.horizon_days);
    let scales = Scales { spend: card.spend_scale, items: card.items_scale };
    let id = if given.is_some() { card.id.clone() } else { Model::id_of(&members, card.horizon_days) };
    if id != card.id {
        return Err(format!("these are the weights of {id}, and the card is that of {}", card.id));
    }
    let (horizon_days, cut) = (card.horizon_days, card.cut);
    Ok(Model { id, horizon_days, cut, scales, members, given, level: card.level, slope: card.slope, estimate, table })
}

/// One trained network, kept so that a training that was interrupted goes on behind it.
///
/// # Errors
/// The file system's.
pub fn save_member(member: &Member, path: &Path) -> Result<(), Error> {
    let bytes = encoded(std::slice::from_ref(member), &[]).map_err(|why| Error::Wrong { path: path.into(), why })?;
    write(path, &bytes)
}

/// A network that [`save_member`] kept; none where there is no such file.
///
/// # Errors
/// The file system's, or a file of another network.
pub fn load_member(kind: &Kind, path: &Path) -> Result<Option<Member>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read(path)?;
    let wrong = |why| Error::Wrong { path: path.into(), why };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| wrong(e.to_string()))?;
    member(&file, kind, 0).map(Some).map_err(wrong)
}
