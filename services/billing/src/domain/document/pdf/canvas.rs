//! Marks onto a PDF/A-3: the one place where lengths become the floats that PDF counts in. No amount comes here but as text.

use krilla::color::rgb;
use krilla::configure::{Archival, ConfigurationBuilder};
use krilla::embed::{AssociationKind, EmbeddedFile, MimeType};
use krilla::geom::{PathBuilder, Point, Rect};
use krilla::metadata::{DateTime, Metadata};
use krilla::page::PageSettings;
use krilla::paint::Fill;
use krilla::surface::Surface;
use krilla::text::{Font, GlyphId, KrillaGlyph};
use krilla::{Document, SerializeSettings};

use super::page::{Colour, Mark, PAGE_HEIGHT, PAGE_WIDTH, Style};
use super::text::{Hundredths, UNITS_PER_EM, Weight, glyph};
use super::{ATTACHMENT, PdfError};

/// What a PDF says of itself, and what it carries.
pub(super) struct About<'a> {
    pub(super) title: &'a str,
    pub(super) author: &'a str,
    pub(super) date: jiff::civil::Date,
    pub(super) attachment: Option<&'a str>,
}

/// Points.
fn points(hundredths: Hundredths) -> f32 {
    // Pages are 84,189 high: far below the 2^24 up to which a float is exact.
    hundredths as f32 / 100.0
}

fn refused(why: impl ToString) -> PdfError {
    PdfError::Refused { why: why.to_string() }
}

/// Writes the pages.
pub(super) fn write(pages: &[Vec<Mark>], about: &About<'_>) -> Result<Vec<u8>, PdfError> {
    let configuration =
        ConfigurationBuilder::new().with_archival_validator(Archival::A3_U).finish().map_err(|error| refused(format!("{error:?}")))?;
    let mut document = Document::new_with(SerializeSettings { configuration, ..SerializeSettings::default() });
    let fonts = Fonts { regular: font(Weight::Regular)?, bold: font(Weight::Bold)? };
    for marks in pages {
        let settings = PageSettings::from_wh(points(PAGE_WIDTH), points(PAGE_HEIGHT)).ok_or_else(|| refused("page size"))?;
        let mut page = document.start_page_with(settings);
        let mut surface = page.surface();
        marks.iter().for_each(|mark| draw(&mut surface, mark, &fonts));
        surface.finish();
        page.finish();
    }
    let date = date(about.date);
    if let Some(xml) = about.attachment {
        let file = EmbeddedFile {
            path: ATTACHMENT.to_owned(),
            mime_type: MimeType::new("text/xml"),
            description: Some("The same invoice as CII, EN 16931".to_owned()),
            association_kind: AssociationKind::Alternative,
            data: xml.as_bytes().to_vec().into(),
            modification_date: Some(date),
            compress: Some(true),
            location: None,
        };
        document.embed_file(file).ok_or_else(|| refused("attachment"))?;
    }
    let metadata = Metadata::new().title(about.title.to_owned()).authors(vec![about.author.to_owned()]).creator("KIKI Billing".to_owned());
    document.set_metadata(metadata.language("en".to_owned()).creation_date(date).document_id(about.title.to_owned()));
    document.finish().map_err(|error| refused(format!("{error:?}")))
}

/// Midnight in UTC: the same document has the same bytes whenever it is written.
fn date(of: jiff::civil::Date) -> DateTime {
    let [year, month, day] = [of.year().unsigned_abs(), of.month().unsigned_abs().into(), of.day().unsigned_abs().into()];
    let small = |part: u16| u8::try_from(part).unwrap_or(1);
    DateTime::new(year).month(small(month)).day(small(day)).hour(0).minute(0).second(0).utc_offset_hour(0).utc_offset_minute(0)
}

struct Fonts {
    regular: Font,
    bold: Font,
}

fn font(weight: Weight) -> Result<Font, PdfError> {
    Font::new(weight.bytes().to_vec().into(), 0).ok_or_else(|| refused("font"))
}

fn draw(surface: &mut Surface<'_>, mark: &Mark, fonts: &Fonts) {
    match mark {
        Mark::Box { x, y, width, height, colour } => {
            let Some(rect) = Rect::from_xywh(points(*x), points(*y), points(*width), points(*height)) else { return };
            let mut path = PathBuilder::new();
            path.push_rect(rect);
            fill(surface, *colour);
            if let Some(path) = path.finish() {
                surface.draw_path(&path);
            }
        }
        Mark::Text { x, y, style, text } => {
            let font = if style.weight == Weight::Bold { &fonts.bold } else { &fonts.regular };
            fill(surface, style.colour);
            surface.draw_glyphs(
                Point::from_xy(points(*x), points(*y)),
                &glyphs(text, *style),
                font.clone(),
                text,
                points(style.size),
                false,
            );
        }
    }
}

fn fill(surface: &mut Surface<'_>, [red, green, blue]: Colour) {
    surface.set_fill(Some(Fill { paint: rgb::Color::new(red, green, blue).into(), ..Fill::default() }));
}

fn glyphs(text: &str, style: Style) -> Vec<KrillaGlyph> {
    let of = |(at, character): (usize, char)| {
        let (id, advance) = glyph(character, style.weight)?;
        let advance = f32::from(advance) / UNITS_PER_EM as f32;
        Some(KrillaGlyph::new(GlyphId::new(id.into()), advance, 0.0, 0.0, 0.0, at..at + character.len_utf8(), None))
    };
    text.char_indices().filter_map(of).collect()
}
