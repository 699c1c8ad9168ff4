//! Impressions: what may be shown, how large or long, and from which price.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::node::Node;
use super::{MAX_ID_BYTES, MAX_IMPS, MAX_SIZES, Malformed, Native, capitals, native};

/// A creative's size in device-independent pixels, both above zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Width.
    pub w: u32,
    /// Height.
    pub h: u32,
}

/// Sizes of one banner: one or two as a rule.
pub type Sizes = SmallVec<[Size; 2]>;

/// A banner's exact sizes. None at all is legal (the specification only recommends them) and matches no creative.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Banner {
    /// `format`, then `w` x `h`, without repetition. Flexible formats are understood, and not bid on.
    pub sizes: Sizes,
}

/// A video or audio slot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Media {
    /// Content types; empty if the request does not say, and then nothing matches.
    pub mimes: Vec<String>,
    /// A video player's size.
    pub size: Option<Size>,
    /// Shortest creative, in seconds.
    pub min_duration_s: u32,
    /// Longest creative, in seconds. Some requests have it below the shortest, and then nothing matches.
    pub max_duration_s: Option<u32>,
}

/// A private deal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deal<'t> {
    /// The exchange's id for it.
    pub id: &'t str,
    /// Lowest price, nanos per impression.
    pub floor_nanos: i64,
    /// Its currency, capitals.
    pub floor_currency: Cow<'t, str>,
}

/// One impression.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imp<'t> {
    /// Its id within the request.
    pub id: &'t str,
    /// It may be a banner.
    pub banner: Option<Banner>,
    /// It may be a video.
    pub video: Option<Media>,
    /// It may be sound.
    pub audio: Option<Media>,
    /// It may be a native ad.
    pub native: Option<Native>,
    /// Lowest price, nanos per impression (a CPM in micros).
    pub floor_nanos: i64,
    /// The floor's currency, capitals.
    pub floor_currency: Cow<'t, str>,
    /// The exchange's name of the placement, `tagid`; empty where it is none, or too long to be one.
    pub placement: &'t str,
    /// The creative must be HTTPS throughout.
    pub secure: bool,
    /// Only its deals may be bid on.
    pub private_auction: bool,
    /// Its deals.
    pub deals: Vec<Deal<'t>>,
}

/// All impressions; those that cannot be bid on are set aside.
pub(super) fn read_all<'t>(root: &Node<'_, 't>, set_aside: &mut Vec<Malformed>) -> Result<Vec<Imp<'t>>, Malformed> {
    let mut ids: Vec<&str> = Vec::new();
    let mut twice: Vec<&str> = Vec::new();
    let mut imps = root.each("imp", MAX_IMPS, |node| {
        let mut faults = Vec::new();
        let imp = read(node, &mut faults)?;
        if ids.contains(&imp.id) {
            faults.push(node.refuse_child("id", format!("{:?} stands twice in the request", imp.id)));
            twice.push(imp.id);
        }
        ids.push(imp.id);
        set_aside.append(&mut faults);
        Ok(imp)
    })?;
    if imps.is_empty() {
        return Err(root.refuse_child("imp", "must have at least one element"));
    }
    imps.retain(|imp| {
        let formats = imp.banner.is_some() || imp.video.is_some() || imp.audio.is_some() || imp.native.is_some();
        formats && !twice.contains(&imp.id)
    });
    Ok(imps)
}

fn read<'t>(node: &Node<'_, 't>, set_aside: &mut Vec<Malformed>) -> Result<Imp<'t>, Malformed> {
    if !node.is_object() {
        return Err(node.refuse("must be an object"));
    }
    let id = node.required_text("id", MAX_ID_BYTES)?;
    let native = node.object("native")?;
    let mut imp = Imp {
        id,
        banner: node.object("banner")?.map(|banner| read_banner(&banner)).transpose()?,
        video: node.object("video")?.map(|video| read_media(&video)).transpose()?,
        audio: node.object("audio")?.map(|audio| read_media(&audio)).transpose()?,
        floor_nanos: node.cpm_micros("bidfloor")?,
        floor_currency: currency(node)?,
        placement: placement(node),
        secure: node.flag("secure")?.unwrap_or(false),
        ..Imp::default()
    };
    if imp.banner.is_none() && imp.video.is_none() && imp.audio.is_none() && native.is_none() {
        return Err(node.refuse("must have at least one of banner, video, audio and native"));
    }
    match native.map(|native| native::read(&native)).transpose()? {
        Some(Ok(native)) => imp.native = Some(native),
        Some(Err(fault)) => set_aside.push(fault),
        None => {}
    }
    if let Some(pmp) = node.object("pmp")? {
        imp.private_auction = pmp.flag("private_auction")?.unwrap_or(false);
        imp.deals = pmp.each("deals", MAX_SIZES, read_deal)?;
    }
    Ok(imp)
}

/// It tells markets apart and nothing else, so nothing is refused for it.
fn placement<'t>(node: &Node<'_, 't>) -> &'t str {
    let tagid = node.get("tagid").and_then(|tagid| tagid.text_here());
    tagid.filter(|tagid| tagid.len() <= MAX_ID_BYTES).unwrap_or_default()
}

fn read_deal<'t>(node: &Node<'_, 't>) -> Result<Deal<'t>, Malformed> {
    Ok(Deal { id: node.required_text("id", MAX_ID_BYTES)?, floor_nanos: node.cpm_micros("bidfloor")?, floor_currency: currency(node)? })
}

/// `bidfloorcur`; the specification's default is USD.
fn currency<'t>(node: &Node<'_, 't>) -> Result<Cow<'t, str>, Malformed> {
    Ok(capitals(node.text("bidfloorcur")?.unwrap_or("USD")))
}

fn read_banner(node: &Node<'_, '_>) -> Result<Banner, Malformed> {
    let mut sizes: Sizes = node.each("format", MAX_SIZES, read_format)?.into_iter().flatten().collect();
    // A width of -1 is how one large exchange writes "as wide as the page"; such a banner has no exact size.
    let w = if node.int("w")? == Some(-1) { None } else { node.count("w")? };
    let own = size(w, node.count("h")?);
    sizes.extend(own.filter(|own| !sizes.contains(own)));
    Ok(Banner { sizes })
}

/// An exact size, or nothing for a flexible one; a format must be the one or the other.
fn read_format(node: &Node<'_, '_>) -> Result<Option<Size>, Malformed> {
    let number = |name| Ok(node.count(name)?.unwrap_or(0));
    let (w, h) = (number("w")?, number("h")?);
    let flexible = [number("wmin")?, number("wratio")?, number("hratio")?];
    let all_flexible = flexible.iter().all(|number| *number > 0);
    let any_flexible = flexible.iter().any(|number| *number > 0);
    match (w > 0 && h > 0, w > 0 || h > 0) {
        (true, _) if !any_flexible => Ok(Some(Size { w, h })),
        (_, false) if all_flexible => Ok(None),
        _ => Err(node.refuse("must have both w and h, or all of wmin, wratio and hratio, above zero")),
    }
}

fn size(w: Option<u32>, h: Option<u32>) -> Option<Size> {
    Some(Size { w: w.filter(|w| *w > 0)?, h: h.filter(|h| *h > 0)? })
}

fn read_media(node: &Node<'_, '_>) -> Result<Media, Malformed> {
    let mimes = node.texts("mimes")?.into_iter().map(str::to_owned).collect::<Vec<_>>();
    if mimes.is_empty() && node.get("mimes").is_some() {
        return Err(node.refuse_child("mimes", "must have at least one content type"));
    }
    for name in ["minbitrate", "maxbitrate", "sequence", "maxseq"] {
        node.count(name)?;
    }
    let size = size(node.count("w")?, node.count("h")?);
    let min_duration_s = node.count("minduration")?.unwrap_or(0);
    let max_duration_s = node.count("maxduration")?.filter(|longest| *longest > 0);
    Ok(Media { mimes, size, min_duration_s, max_duration_s })
}
