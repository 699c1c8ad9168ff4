//! Creatives: the markup, and what of it decides where it may be shown.

use kiki::leaf;

use super::click;
use super::openrtb::{AssetKind, Dsa, MarkupType, Size};

/// Replaced in markup by the address that a click opens.
pub const CLICK_MACRO: &str = "${KIKI_CLICK}";

/// A creative, compiled from its campaign.
#[derive(Debug, Clone)]
pub struct Creative {
    /// Its id within the campaign.
    pub id: String,
    /// Its id for exchanges.
    pub crid: String,
    /// The advertiser's domains, in lower case.
    pub adomain: Vec<String>,
    /// IAB categories of what is advertised.
    pub categories: Vec<String>,
    /// The app that it advertises, by its store's id; or empty.
    pub bundle: String,
    /// What it is.
    pub format: leaf::CreativeFormat,
    /// A banner's size; a video's, if it says.
    pub size: Size,
    /// Seconds of video or sound.
    pub duration_s: u32,
    /// HTML, VAST or native JSON, in parts: the click's address goes between them.
    markup: Vec<String>,
    /// The advertiser's landing page.
    pub click_url: String,
    /// The same as a parameter of the click's address.
    pub click_to: String,
    /// Nothing in it is fetched without TLS.
    pub secure: bool,
    /// Content types that the markup names; none where it is a wrapper around another.
    pub mimes: Vec<String>,
    /// Native assets by id and kind.
    pub assets: Vec<(i64, AssetKind)>,
    /// Whose ad it is and who pays, if that may be told.
    pub disclosure: Option<leaf::Disclosure>,
}

impl Creative {
    /// Compiles a creative.
    #[must_use]
    pub fn compile(creative: &leaf::Creative) -> Self {
        Self {
            id: creative.creative.clone(),
            crid: if creative.crid.is_empty() { creative.creative.clone() } else { creative.crid.clone() },
            adomain: creative.adomain.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            categories: creative.categories.clone(),
            bundle: creative.bundle.clone(),
            format: creative.format(),
            size: Size { w: creative.width, h: creative.height },
            duration_s: creative.duration_seconds,
            secure: !creative.markup.contains("http://"),
            mimes: mimes(&creative.markup),
            assets: assets(&creative.markup),
            disclosure: creative.disclosure.clone(),
            markup: creative.markup.split(CLICK_MACRO).map(str::to_owned).collect(),
            click_url: creative.click_url.clone(),
            click_to: click::encode(&creative.click_url),
        }
    }

    /// The markup of one bid, in parts. `click`: the address that a click opens, in parts too.
    pub fn render<'a>(&'a self, click: &'a [&'a str]) -> impl Iterator<Item = &'a str> + Clone {
        let between = move |at: usize| if at == 0 { &[][..] } else { click };
        self.markup.iter().enumerate().flat_map(move |(at, part)| between(at).iter().copied().chain([part.as_str()]))
    }

    /// What a request is told of whose ad it is, where it asks for that and either the publisher or the markup shows it.
    #[must_use]
    pub fn disclosed(&self, dsa: Dsa) -> Option<&leaf::Disclosure> {
        self.disclosure.as_ref().filter(|disclosure| dsa.takes(disclosure.rendered))
    }

    /// What the markup is, in OpenRTB's list.
    #[must_use]
    pub fn markup_type(&self) -> MarkupType {
        match self.format {
            leaf::CreativeFormat::Video => MarkupType::Video,
            leaf::CreativeFormat::Audio => MarkupType::Audio,
            leaf::CreativeFormat::Native => MarkupType::Native,
            leaf::CreativeFormat::Banner | leaf::CreativeFormat::Unspecified => MarkupType::Banner,
        }
    }
}

/// The `type="video/mp4"` of VAST's media files; other types (of scripts, say) are no media.
fn mimes(markup: &str) -> Vec<String> {
    let types = markup.split("type=\"").skip(1).filter_map(|rest| rest.split('"').next());
    types.filter(|mime| mime.starts_with("video/") || mime.starts_with("audio/")).map(str::to_owned).collect()
}

/// The assets of a native answer, bare or inside the `native` object of version 1.0.
fn assets(markup: &str) -> Vec<(i64, AssetKind)> {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(markup) else { return Vec::new() };
    let list = json.get("native").unwrap_or(&json).get("assets").and_then(serde_json::Value::as_array);
    let kinds = [("title", AssetKind::Title), ("img", AssetKind::Img), ("video", AssetKind::Video), ("data", AssetKind::Data)];
    let kind = |asset: &serde_json::Value| kinds.iter().find(|(name, _)| asset.get(name).is_some()).map(|kind| kind.1);
    let asset = |asset: &serde_json::Value| Some((asset.get("id")?.as_i64()?, kind(asset)?));
    list.map(|list| list.iter().filter_map(asset).collect()).unwrap_or_default()
}
