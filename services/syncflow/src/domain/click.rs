//! Click addresses: where an ad leads, and where a click on it is sent on to.

/// The address that a click opens, in parts. `to`: the landing page, as [`encode`] writes it.
#[must_use]
pub fn address<'a>(public_url: &'a str, receipt: &'a str, to: &'a str) -> [&'a str; 5] {
    [public_url, "/click?r=", receipt, "&to=", to]
}

/// The landing page with the receipt among its parameters.
#[must_use]
pub fn with_receipt(page: &str, receipt: &str) -> String {
    let (page, fragment) = page.split_once('#').map_or((page, None), |(page, fragment)| (page, Some(fragment)));
    let joint = if page.contains('?') { '&' } else { '?' };
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    format!("{page}{joint}kiki_receipt={receipt}{fragment}")
}

/// Percent-encoding of a query value (RFC 3986): all but the unreserved characters.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 3 / 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_receipt_goes_among_the_pages_parameters() {
        assert_eq!(with_receipt("https://a.example/p", "R"), "https://a.example/p?kiki_receipt=R");
        assert_eq!(with_receipt("https://a.example/?x=1#top", "R"), "https://a.example/?x=1&kiki_receipt=R#top");
    }

    #[test]
    fn a_landing_page_is_one_parameter_of_the_click() {
        let page = encode("https://a.example/?x=1&y=ü");
        assert_eq!(address("http://flow", "R", &page).concat(), "http://flow/click?r=R&to=https%3A%2F%2Fa.example%2F%3Fx%3D1%26y%3D%C3%BC");
    }
}
