//! What a request says of the law and of where it comes from, as the signals that rules can refuse.
//!
//! Of a TCF string (version 2) the purposes' consents are read; of a US privacy string the opt-out of sale. A string that
//! cannot be read counts as none. Deliberately not here: vendor consents, publisher restrictions and GPP's sections.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::leaf::Signal;

/// What a bid request says of the law.
#[derive(Debug, Clone, Copy, Default)]
pub struct Regulations<'a> {
    /// The user is a child.
    pub coppa: bool,
    /// GDPR applies; none where the request does not say.
    pub gdpr: Option<bool>,
    /// The TCF consent string.
    pub tcf: Option<&'a str>,
    /// The IAB's US privacy string.
    pub us_privacy: Option<&'a str>,
    /// The IAB's global privacy string.
    pub gpp: Option<&'a str>,
    /// A bid has to say whose ad it is (Digital Services Act).
    pub dsa_required: bool,
    /// Whether the supply chain is complete; none where there is no chain.
    pub chain_complete: Option<bool>,
}

/// A bit for each signal of the request: bit n is the enum value n.
#[must_use]
pub fn signals(regulations: &Regulations<'_>) -> u32 {
    let gdpr = regulations.gdpr == Some(true);
    let purposes = regulations.tcf.and_then(purposes);
    let opted_out = regulations.us_privacy.is_some_and(|text| matches!(text.as_bytes(), [b'1', _, b'Y' | b'y', _]));
    let found = [
        (Signal::Coppa, regulations.coppa),
        (Signal::Gdpr, gdpr),
        (Signal::TcfMissing, gdpr && purposes.is_none()),
        (Signal::TcfRefused, gdpr && purposes.is_some_and(|purposes| purposes & 0b1111 != 0b1111)),
        (Signal::UsOptOut, opted_out),
        (Signal::Gpp, regulations.gpp.is_some_and(|text| !text.is_empty())),
        (Signal::DsaRequired, regulations.dsa_required),
        (Signal::SupplyChainMissing, regulations.chain_complete.is_none()),
        (Signal::SupplyChainIncomplete, regulations.chain_complete == Some(false)),
    ];
    found.iter().filter(|(_, is)| *is).fold(0, |bits, (signal, _)| bits | 1 << (*signal as u32))
}

/// Consents to the 24 purposes: bit n is purpose n + 1. They stand at bits 152 to 175 of the core segment.
fn purposes(tcf: &str) -> Option<u32> {
    let core = tcf.split('.').next()?;
    // 32 characters are the 24 bytes that reach beyond the purposes; what follows need not be decoded.
    let bytes = URL_SAFE_NO_PAD.decode(core.get(..32)?).ok()?;
    let version = bytes.first()? >> 2;
    let field = bytes.get(19..22)?;
    (version == 2).then(|| (0..24).filter(|bit| field[bit / 8] & 0x80 >> (bit % 8) != 0).fold(0, |bits, bit| bits | 1 << bit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The core of a string with these consents, first purpose first.
    fn tcf(version: u8, consents: [u8; 3]) -> String {
        let mut core = [0; 24];
        core[0] = version << 2;
        core[19..22].copy_from_slice(&consents);
        format!("{}.rest", URL_SAFE_NO_PAD.encode(core))
    }

    /// With a complete supply chain, so that nothing is said of that.
    fn of(regulations: Regulations<'_>) -> Vec<Signal> {
        let bits = signals(&Regulations { chain_complete: regulations.chain_complete.or(Some(true)), ..regulations });
        (0..32).filter(|bit| bits & 1 << bit != 0).filter_map(|bit| Signal::try_from(bit).ok()).collect()
    }

    #[test]
    fn consent_is_looked_for_where_gdpr_applies() {
        let all = tcf(2, [0xf0, 0, 0]);
        let not_profiles = tcf(2, [0xd0, 0, 0]);
        let gdpr = |tcf| of(Regulations { gdpr: Some(true), tcf, ..Default::default() });
        assert_eq!(gdpr(Some(&all)), [Signal::Gdpr]);
        assert_eq!(gdpr(Some(&not_profiles)), [Signal::Gdpr, Signal::TcfRefused]);
        assert_eq!(gdpr(None), [Signal::Gdpr, Signal::TcfMissing]);
        assert_eq!(gdpr(Some("nonsense")), [Signal::Gdpr, Signal::TcfMissing]);
        assert_eq!(gdpr(Some(&tcf(1, [0xf0, 0, 0]))), [Signal::Gdpr, Signal::TcfMissing]);
        assert_eq!(of(Regulations { tcf: Some(&not_profiles), ..Default::default() }), []);
    }

    #[test]
    fn a_real_string_is_read() {
        // From the specification's examples of TCF v2: consent to purposes 1 to 3 alone.
        let text = "COvFyGBOvFyGBAbAAAENAPCAAOAAAAAAAAAAAEEUACCKAAA";
        assert_eq!(purposes(text), Some(0b111));
    }

    #[test]
    fn children_opt_outs_and_gpp_are_seen() {
        assert_eq!(of(Regulations { coppa: true, ..Default::default() }), [Signal::Coppa]);
        assert_eq!(of(Regulations { us_privacy: Some("1YYN"), gpp: Some("DBAA"), ..Default::default() }), [Signal::UsOptOut, Signal::Gpp]);
        assert_eq!(of(Regulations { us_privacy: Some("1YNN"), gpp: Some(""), ..Default::default() }), []);
    }

    #[test]
    fn disclosure_and_supply_chain_are_seen() {
        assert_eq!(of(Regulations { dsa_required: true, ..Default::default() }), [Signal::DsaRequired]);
        assert_eq!(of(Regulations { chain_complete: Some(false), ..Default::default() }), [Signal::SupplyChainIncomplete]);
        assert_eq!(signals(&Regulations::default()), 1 << (Signal::SupplyChainMissing as u32));
    }
}
