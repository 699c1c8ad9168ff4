//! Everything around the impressions: the site or app, the device, the user and the law.

use kiki::country::alpha3;

use super::node::Node;
use super::{MAX_CUSTOMER_BYTES, Malformed};

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
pub struct Channel {
    /// Which of the three it is.
    pub kind: ChannelKind,
    /// The domain in lower case; a site's is taken from its page where it names none.
    pub domain: Option<String>,
    /// An application's bundle or store id.
    pub bundle: Option<String>,
    /// Its content categories, in the taxonomy of the request.
    pub cat: Vec<String>,
}

/// What the ad would show on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// ISO 3166-1 alpha-3, capitals.
    pub country: Option<String>,
}

/// What the request says of the law, kept as it came.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Regs {
    /// The user is a child in the sense of COPPA.
    pub coppa: bool,
    /// The GDPR applies; nothing if the request does not say.
    pub gdpr: Option<bool>,
    /// The IAB's US privacy string.
    pub us_privacy: Option<String>,
    /// The IAB's global privacy string.
    pub gpp: Option<String>,
    /// The user's TCF consent string.
    pub consent: Option<String>,
}

impl Regs {
    /// As the guardrails take it.
    #[must_use]
    pub fn regulations(&self) -> kiki::guardrail::Regulations<'_> {
        kiki::guardrail::Regulations {
            coppa: self.coppa,
            gdpr: self.gdpr,
            tcf: self.consent.as_deref(),
            us_privacy: self.us_privacy.as_deref(),
            gpp: self.gpp.as_deref(),
        }
    }
}

pub(super) fn read(root: &Node<'_, '_>, set_aside: &mut Vec<Malformed>) -> Result<Channel, Malformed> {
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
        channel.domain = node.text("domain")?.or(page.and_then(host)).map(str::to_ascii_lowercase);
        channel.bundle = if kind == ChannelKind::App { node.text("bundle")?.map(str::to_owned) } else { None };
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
pub(super) fn regs(root: &Node<'_, '_>) -> Result<Regs, Malformed> {
    let mut found = Regs::default();
    if let Some(regs) = root.object("regs")? {
        let mut places = vec![regs];
        places.extend(regs.ext());
        for place in places {
            found.coppa |= place.flag("coppa")?.unwrap_or(false);
            found.gdpr = found.gdpr.or(place.flag("gdpr")?);
            found.us_privacy = found.us_privacy.or(place.text("us_privacy")?.map(str::to_owned));
            found.gpp = found.gpp.or(place.text("gpp")?.map(str::to_owned));
        }
    }
    if let Some(user) = root.object("user")? {
        let mut places = vec![user];
        places.extend(user.ext());
        for place in places {
            found.consent = found.consent.or(place.text("consent")?.map(str::to_owned));
        }
    }
    Ok(found)
}

/// Who would see the ad: the buyer's id for them, else the exchange's, else the device's.
///
/// A child's ids are not used at all, and a device's not where its owner limits tracking: an
/// impression without a customer is priced by the campaign's prior.
pub(super) fn customer(root: &Node<'_, '_>, regs: &Regs) -> Result<Option<String>, Malformed> {
    let mut ids = Vec::new();
    if let Some(user) = root.object("user")? {
        ids.extend([user.text("buyeruid")?, user.text("id")?]);
    }
    if let Some(device) = root.object("device")? {
        let limited = device.int("lmt")? == Some(1) || device.int("dnt")? == Some(1); // 2 occurs, for "unknown"
        let ifa = device.text("ifa")?.filter(|ifa| !limited && ifa.bytes().any(|byte| byte != b'0' && byte != b'-'));
        ids.push(ifa);
    }
    let usable = |id: &&str| id.len() <= MAX_CUSTOMER_BYTES && !id.chars().any(char::is_control);
    let first = ids.into_iter().flatten().find(usable).map(str::to_owned);
    Ok(first.filter(|_| !regs.coppa))
}
