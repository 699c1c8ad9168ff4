//! Native markup requests (OpenRTB Native 1.2), which come as JSON inside a string. All of it is checked; what is kept
//! is which assets an answer must have.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use super::node::Node;
use super::tape::Tape;
use super::{Malformed, shape};

/// Lists of the specification leave numbers from here on to the exchange.
const EXCHANGE_SPECIFIC: i64 = 500;
/// Assets and event trackers of one ad. The specification's largest example has seven.
const MAX_ASSETS: usize = 100;

/// The kinds of asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AssetKind {
    /// A headline.
    Title,
    /// An image.
    Img,
    /// A video.
    Video,
    /// Any other text.
    Data,
}

/// What a native answer must have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Native {
    /// Id and kind of each required asset; where the request gives no ids, its place in the list is its id.
    pub required: Vec<(i64, AssetKind)>,
}

/// What is asked for, or why this native impression is set aside.
///
/// # Errors
/// [`Malformed`] for markup whose structure contradicts the specification.
pub(super) fn read(native: &Node<'_, '_>) -> Result<Result<Native, Malformed>, Malformed> {
    // In protobuf the request may come as a message beside the text of it.
    let Some(request) = native.get("request").or_else(|| native.get("request_native")) else {
        return Ok(Err(native.refuse_child("request", "is required")));
    };
    let parsed;
    let markup = match request.text_here() {
        Some(text) => match Tape::json(text, &shape::MARKUP) {
            Ok(tape) => {
                parsed = tape;
                request.document(&parsed).filter(Node::is_object)
            }
            Err(error) => return Ok(Err(request.refuse(format!("is not JSON: {error}")))),
        },
        None if request.is_object() => Some(request), // some exchanges send the object itself
        None => return Err(request.refuse("must be a string")),
    };
    let Some(markup) = markup else { return Ok(Err(request.refuse("must be a JSON object inside a string"))) };
    // Native 1.0 wrapped everything in one more object.
    match markup.object("native")? {
        Some(wrapped) => read_markup(&wrapped),
        None => read_markup(&markup),
    }
}

fn read_markup(markup: &Node<'_, '_>) -> Result<Result<Native, Malformed>, Malformed> {
    check_context(markup)?;
    let trackers = |tracker: &Node<'_, '_>| {
        listed(tracker, "event", 1..=4)?;
        if tracker.len("methods", MAX_ASSETS)? == 0 {
            return Err(tracker.refuse_child("methods", "must have at least one element"));
        }
        tracker.each("methods", MAX_ASSETS, |method| in_list(method, 1..=2)).map(|_| ())
    };
    markup.each("eventtrackers", MAX_ASSETS, trackers)?;
    if markup.len("assets", MAX_ASSETS)? == 0 {
        return Ok(Err(markup.refuse_child("assets", "must have at least one element")));
    }
    let mut fault = None;
    let mut required = Vec::new();
    let mut ids = HashSet::new();
    let mut place = 0;
    let named = markup.each("assets", MAX_ASSETS, |asset| {
        let id = asset.int("id")?;
        place += 1;
        match read_asset(asset)? {
            Ok(kind) if asset.int("required")? == Some(1) => required.push((id.unwrap_or(place - 1), kind)),
            Ok(_) => {}
            Err(found) => drop(fault.get_or_insert(found)),
        }
        match id {
            Some(id) if !ids.insert(id) => Err(asset.refuse_child("id", format!("{id} stands twice"))),
            id => Ok(id.is_some()),
        }
    })?;
    if named.contains(&true) && named.contains(&false) {
        return Err(markup.refuse_child("assets", "must all have an id, or none of them"));
    }
    if let Err(unknown) = listed(markup, "plcmttype", 1..=4) {
        fault.get_or_insert(unknown);
    }
    Ok(fault.map_or(Ok(Native { required }), Err))
}

/// The context and its finer kind: 1x is content, 2x social, 3x product.
fn check_context(markup: &Node<'_, '_>) -> Result<(), Malformed> {
    let context = listed(markup, "context", 1..=3)?;
    let Some(finer) = markup.int("contextsubtype")?.filter(|finer| *finer != 0) else { return Ok(()) };
    let expected = match finer {
        10..=15 => 1,
        20..=22 => 2,
        30..=32 => 3,
        EXCHANGE_SPECIFIC.. => return Ok(()),
        _ => return Err(markup.refuse_child("contextsubtype", format!("{finer} is not in the specification's list"))),
    };
    match context {
        Some(context) if context != expected && context < EXCHANGE_SPECIFIC => {
            Err(markup.refuse_child("contextsubtype", format!("{finer} belongs to context {expected}, and the context is {context}")))
        }
        _ => Ok(()),
    }
}

/// Exactly one kind, with what that kind needs. An asset of none sets the impression aside.
fn read_asset(asset: &Node<'_, '_>) -> Result<Result<AssetKind, Malformed>, Malformed> {
    let (title, img) = (asset.object("title")?, asset.object("img")?);
    let (video, data) = (asset.object("video")?, asset.object("data")?);
    let kind = match (title.is_some(), img.is_some(), video.is_some(), data.is_some()) {
        (true, false, false, false) => AssetKind::Title,
        (false, true, false, false) => AssetKind::Img,
        (false, false, true, false) => AssetKind::Video,
        (false, false, false, true) => AssetKind::Data,
        (false, false, false, false) => return Ok(Err(asset.refuse("must have one of title, img, video and data"))),
        _ => return Err(asset.refuse("must have only one of title, img, video and data")),
    };
    if let Some(title) = title {
        title.count("len")?;
    }
    if let Some(img) = img {
        for name in ["w", "h", "wmin", "hmin"] {
            img.count(name)?;
        }
    }
    if let Some(video) = video {
        for name in ["mimes", "protocols"] {
            if video.len(name, MAX_ASSETS)? == 0 {
                return Err(video.refuse_child(name, "must have at least one element"));
            }
        }
        for name in ["minduration", "maxduration"] {
            if video.count(name)?.unwrap_or(0) == 0 {
                return Err(video.refuse_child(name, "is required and must be above zero"));
            }
        }
    }
    if let Some(data) = data {
        listed(&data, "type", 1..=12)?;
    }
    Ok(Ok(kind))
}

/// A number of one of the specification's lists, if it is there.
fn listed(node: &Node<'_, '_>, name: &'static str, list: RangeInclusive<i64>) -> Result<Option<i64>, Malformed> {
    node.get(name).map_or(Ok(None), |child| in_list(&child, list))
}

fn in_list(node: &Node<'_, '_>, list: RangeInclusive<i64>) -> Result<Option<i64>, Malformed> {
    match node.as_int()? {
        Some(number) if number != 0 && number < EXCHANGE_SPECIFIC && !list.contains(&number) => {
            let (first, last) = list.into_inner();
            Err(node.refuse(format!("must be from {first} to {last} or from {EXCHANGE_SPECIFIC}, got {number}")))
        }
        number => Ok(number),
    }
}
