//! What a text looks like in Noto Sans: glyphs, widths, lines.
//!
//! One glyph a character, without kerning: figures stand in columns, and names need no ligatures.

use std::borrow::Cow;
use std::sync::LazyLock;

use ttf_parser::Face;

/// Hundredths of a point, the unit of everything on a page.
pub(super) type Hundredths = i64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    Regular,
    Bold,
}

impl Weight {
    pub(super) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Regular => notosans::REGULAR_TTF,
            Self::Bold => notosans::BOLD_TTF,
        }
    }

    fn face(self) -> &'static Face<'static> {
        static REGULAR: LazyLock<Face<'static>> = LazyLock::new(|| parse(Weight::Regular));
        static BOLD: LazyLock<Face<'static>> = LazyLock::new(|| parse(Weight::Bold));
        match self {
            Self::Regular => &REGULAR,
            Self::Bold => &BOLD,
        }
    }
}

fn parse(weight: Weight) -> Face<'static> {
    Face::parse(weight.bytes(), 0).unwrap_or_else(|error| unreachable!("a font of the build: {error}"))
}

/// Font units of an em: what advances are counted in.
pub(super) const UNITS_PER_EM: i64 = 2048;

/// A character's glyph and its advance in font units; none where the font lacks it.
pub(super) fn glyph(character: char, weight: Weight) -> Option<(u16, u16)> {
    let face = weight.face();
    let id = face.glyph_index(character).filter(|id| id.0 != 0)?;
    Some((id.0, face.glyph_hor_advance(id)?))
}

/// How wide a text is at a size.
pub(super) fn width(text: &str, weight: Weight, size: Hundredths) -> Hundredths {
    let units: i64 = text.chars().filter_map(|c| glyph(c, weight)).map(|(_, advance)| i64::from(advance)).sum();
    units * size / UNITS_PER_EM
}

/// The text with each character that the font lacks spelled as `<U+682A>`, so that nothing goes missing unseen.
pub(super) fn spelled(text: &str) -> Cow<'_, str> {
    let lacks = |c: char| c != '\n' && (glyph(c, Weight::Regular).is_none() || glyph(c, Weight::Bold).is_none());
    if !text.chars().any(lacks) {
        return Cow::Borrowed(text);
    }
    let spell = |c: char| if lacks(c) { format!("<U+{:04X}>", u32::from(c)) } else { c.to_string() };
    Cow::Owned(text.chars().map(spell).collect())
}

/// Breaks a text at its line ends and spaces into lines no wider than `most`; a longer word is broken where it must be.
pub(super) fn wrap(text: &str, weight: Weight, size: Hundredths, most: Hundredths) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        let mut line = String::new();
        for word in paragraph.split_whitespace().flat_map(|word| pieces(word, weight, size, most)) {
            let longer = if line.is_empty() { word.clone() } else { format!("{line} {word}") };
            if line.is_empty() || width(&longer, weight, size) <= most {
                line = longer;
            } else {
                lines.push(std::mem::replace(&mut line, word));
            }
        }
        lines.push(line);
    }
    lines
}

fn pieces(word: &str, weight: Weight, size: Hundredths, most: Hundredths) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut used = 0;
    for character in word.chars() {
        let advance = width(character.encode_utf8(&mut [0; 4]), weight, size);
        if used + advance > most && used > 0 {
            out.push(String::new());
            used = 0;
        }
        used += advance;
        if let Some(piece) = out.last_mut() {
            piece.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_european_letter_has_a_glyph_in_both_weights() {
        let letters = (' '..='~').chain('\u{a0}'..='\u{24f}').chain('\u{400}'..='\u{45f}').chain("αβγΩ–—‘’“”•×÷−€£¥₩₹₺₴₫₱".chars());
        for letter in letters {
            assert!(glyph(letter, Weight::Regular).is_some() && glyph(letter, Weight::Bold).is_some(), "{letter:?}");
        }
    }

    #[test]
    fn what_the_font_lacks_is_spelled() {
        assert_eq!(spelled("Łódź ₽ 株式"), "Łódź <U+20BD> <U+682A><U+5F0F>");
        assert_eq!(spelled("plain\ntext"), "plain\ntext");
    }

    #[test]
    fn lines_keep_every_character_and_their_width() {
        let text = "a few words, and onewordthatislongerthananylinemaybe\nnew";
        let lines = wrap(text, Weight::Regular, 900, 6_000);
        assert!(lines.len() > 4, "{lines:?}");
        assert!(lines.iter().all(|line| width(line, Weight::Regular, 900) <= 6_000), "{lines:?}");
        let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
        assert_eq!(letters(&lines.concat()), letters(text));
    }

    #[test]
    fn figures_are_of_one_width() {
        let widths = ('0'..='9').map(|digit| glyph(digit, Weight::Regular).map(|(_, advance)| advance));
        assert_eq!(widths.collect::<std::collections::BTreeSet<_>>().len(), 1);
    }
}
