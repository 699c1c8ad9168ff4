//! Everything around the impressions: the site or app, the device, the user and the law.

use std::borrow::Cow;

use kiki::country::alpha3;

use super::node::Node;
use super::{MAX_CUSTOMER_BYTES, Malformed, small};

/// What kind of place the ad would show in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelKind {
    /// The request does not say; a quarter of collected requests do not.
    #[default]
    Unknown,
    /// A web site.
    Site,
    /// An application.
    App,
    /// A screen out of home.
    Dooh,
    /// More than one of them was named, which is none.
    Ambiguous,
}

/// Where the ad would show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Channel<'t> {
    /// Which of the three it is.
    pub kind: ChannelKind,
    /// The domain in lower case; a site's is taken from its page where it names none.
    pub domain: Option<Cow<'t, str>>,
    /// An application's bundle or store id.
    pub bundle: Option<&'t str>,
    /// Its content categories, in the taxonomy of the request.
    pub cat: Vec<&'t str>,
}

/// What the ad would show on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// ISO 3166-1 alpha-3, capitals.
    pub country: Option<String>,
}

/// What the request says of the law, kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Regs<'t> {
    /// The user is a child in the sense of COPPA.
    pub coppa: bool,
    /// The GDPR applies; nothing if the request does not say.
    pub gdpr: Option<bool>,
    /// The IAB's US privacy string.
    pub us_privacy: Option<&'t str>,
    /// The IAB's global privacy string.
    pub gpp: Option<&'t str>,
    /// The user's TCF consent string.
    pub consent: Option<&'t str>,
    /// What is to be told of whose ad it is.
    pub dsa: Dsa,
    /// Whether the supply chain is complete; none where there is no chain.
    pub chain_complete: Option<bool>,
}

/// What a request asks to be told of whose ad it is: the IAB Tech Lab's extension DSA Transparency
/// (`extensions/community_extensions/dsa_transparency.md` of its OpenRTB repository).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dsa {
    /// 0: nothing, 1: it may be told, 2 and 3: a bid that does not is not taken.
    pub required: u32,
    /// Whether the publisher shows it to the user: 0 cannot, 1 could, 2 will. None where the request does not say.
    pub publisher_renders: Option<u32>,
}

impl Dsa {
    /// Whether a bid has to tell.
    #[must_use]
    pub const fn is_required(self) -> bool {
        self.required >= 2
    }

    /// Whether it is told with an ad that shows it itself, or that does not: it has to be shown, and once.
    #[must_use]
    pub fn takes(self, ad_renders: bool) -> bool {
        self.required > 0 && self.publisher_renders != Some(if ad_renders { 2 } else { 0 })
    }
}

impl Regs<'_> {
    /// As the guardrails take it.
    #[must_use]
    pub fn regulations(&self) -> kiki::guardrail::Regulations<'_> {
        kiki::guardrail::Regulations {
            coppa: self.coppa,
            gdpr: self.gdpr,
            tcf: self.consent,
            us_privacy: self.us_privacy,
            gpp: self.gpp,
            dsa_required: self.dsa.is_required(),
            chain_complete: self.chain_complete,
        }
    }
}

pub(super) fn read<'t>(root: &Node<'_, 't>, set_aside: &mut Vec<Malformed>) -> Result<Channel<'t>, Malformed> {
    let kinds = [("site", ChannelKind::Site), ("app", ChannelKind::App), ("dooh", ChannelKind::Dooh)];
    let mut channel = Channel::default();
    for (name, kind) in kinds {
        let Some(node) = root.object(name)? else { continue };
        if channel.kind != ChannelKind::Unknown {
            set_aside.push(node.refuse("must not be there beside another of site, app and dooh"));
            channel.kind = ChannelKind::Ambiguous;
            continue;
        }
        channel.kind = kind;
        let page = if kind == ChannelKind::Site { node.text("page")? } else { None };
        channel.domain = node.text("domain")?.or(page.and_then(host)).map(small);
        channel.bundle = if kind == ChannelKind::App { node.text("bundle")? } else { None };
        channel.cat = node.texts("cat")?;
    }
    Ok(channel)
}

/// The host of a page's address, with or without a scheme.
fn host(page: &str) -> Option<&str> {
    let rest = page.split_once("://").map_or(page, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?.split(':').next()?;
    Some(host).filter(|host| !host.is_empty())
}

pub(super) fn device(root: &Node<'_, '_>) -> Result<Device, Malformed> {
    let Some(device) = root.object("device")? else { return Ok(Device::default()) };
    device.count("w")?;
    device.count("h")?;
    let geo = device.object("geo")?;
    let country = geo.map(|geo| geo.text("country")).transpose()?.flatten();
    Ok(Device { country: country.and_then(alpha3) })
}

/// `regs` of OpenRTB 2.6, else the same under `regs.ext`, where 2.5 had it.
pub(super) fn regs<'t>(root: &Node<'_, 't>) -> Result<Regs<'t>, Malformed> {
    let mut found = Regs::default();
    if let Some(regs) = root.object("regs")? {
        for place in [Some(regs), regs.ext()].into_iter().flatten() {
            found.coppa |= place.flag("coppa")?.unwrap_or(false);
            found.gdpr = found.gdpr.or(place.flag("gdpr")?);
            found.us_privacy = found.us_privacy.or(place.text("us_privacy")?);
            found.gpp = found.gpp.or(place.text("gpp")?);
            if let Some(dsa) = place.object("dsa")? {
                found.dsa.required = found.dsa.required.max(dsa.count("dsarequired")?.unwrap_or(0));
                found.dsa.publisher_renders = found.dsa.publisher_renders.or(dsa.count("pubrender")?);
            }
        }
    }
    if let Some(user) = root.object("user")? {
        for place in [Some(user), user.ext()].into_iter().flatten() {
            found.consent = found.consent.or(place.text("consent")?);
        }
    }
    found.chain_complete = chain_complete(root)?;
    Ok(found)
}

/// `source.schain.complete`, or where 2.5 had it. A chain that does not say is not complete.
fn chain_complete(root: &Node<'_, '_>) -> Result<Option<bool>, Malformed> {
    let Some(source) = root.object("source")? else { return Ok(None) };
    let ext = source.ext();
    for place in [Some(&source), ext.as_ref()].into_iter().flatten() {
        if let Some(chain) = place.object("schain")? {
            return Ok(Some(chain.flag("complete")?.unwrap_or(false)));
        }
    }
    Ok(None)
}

/// Who would see the ad: the buyer's id for them, else the exchange's, else the device's.
///
/// A child's ids are not used at all, and a device's not where its owner limits tracking: an
/// impression without a customer is priced by the campaign's prior.
pub(super) fn customer<'t>(root: &Node<'_, 't>, regs: &Regs<'_>) -> Result<Option<&'t str>, Malformed> {
    let mut ids = [None; 3];
    if let Some(user) = root.object("user")? {
        ids[0] = user.text("buyeruid")?;
        ids[1] = user.text("id")?;
    }
    if let Some(device) = root.object("device")? {
        let limited = device.int("lmt")? == Some(1) || device.int("dnt")? == Some(1); // 2 occurs, for "unknown"
        ids[2] = device.text("ifa")?.filter(|ifa| !limited && ifa.bytes().any(|byte| byte != b'0' && byte != b'-'));
    }
    let usable = |id: &&str| id.len() <= MAX_CUSTOMER_BYTES && !id.chars().any(char::is_control);
    Ok(ids.into_iter().flatten().find(usable).filter(|_| !regs.coppa))
}
