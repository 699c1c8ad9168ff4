//! Country codes: the 249 of ISO 3166-1 that are in force, officially assigned codes alone.
//!
//! `device.geo.country` of OpenRTB is alpha-3 by the specification and often alpha-2 in traffic; here everything is alpha-3.

/// Kosovo's user-assigned codes, which exchanges send.
const IN_USE: &str = "XKXKX";

/// Alpha-2 followed by alpha-3, in the order of alpha-2.
const CODES: &str = "\
ADAND AEARE AFAFG AGATG AIAIA ALALB AMARM AOAGO AQATA ARARG ASASM ATAUT AUAUS AWABW AXALA AZAZE \
BABIH BBBRB BDBGD BEBEL BFBFA BGBGR BHBHR BIBDI BJBEN BLBLM BMBMU BNBRN BOBOL BQBES BRBRA BSBHS \
BTBTN BVBVT BWBWA BYBLR BZBLZ CACAN CCCCK CDCOD CFCAF CGCOG CHCHE CICIV CKCOK CLCHL CMCMR CNCHN \
COCOL CRCRI CUCUB CVCPV CWCUW CXCXR CYCYP CZCZE DEDEU DJDJI DKDNK DMDMA DODOM DZDZA ECECU EEEST \
EGEGY EHESH ERERI ESESP ETETH FIFIN FJFJI FKFLK FMFSM FOFRO FRFRA GAGAB GBGBR GDGRD GEGEO GFGUF \
GGGGY GHGHA GIGIB GLGRL GMGMB GNGIN GPGLP GQGNQ GRGRC GSSGS GTGTM GUGUM GWGNB GYGUY HKHKG HMHMD \
HNHND HRHRV HTHTI HUHUN IDIDN IEIRL ILISR IMIMN ININD IOIOT IQIRQ IRIRN ISISL ITITA JEJEY JMJAM \
JOJOR JPJPN KEKEN KGKGZ KHKHM KIKIR KMCOM KNKNA KPPRK KRKOR KWKWT KYCYM KZKAZ LALAO LBLBN LCLCA \
LILIE LKLKA LRLBR LSLSO LTLTU LULUX LVLVA LYLBY MAMAR MCMCO MDMDA MEMNE MFMAF MGMDG MHMHL MKMKD \
MLMLI MMMMR MNMNG MOMAC MPMNP MQMTQ MRMRT MSMSR MTMLT MUMUS MVMDV MWMWI MXMEX MYMYS MZMOZ NANAM \
NCNCL NENER NFNFK NGNGA NINIC NLNLD NONOR NPNPL NRNRU NUNIU NZNZL OMOMN PAPAN PEPER PFPYF PGPNG \
PHPHL PKPAK PLPOL PMSPM PNPCN PRPRI PSPSE PTPRT PWPLW PYPRY QAQAT REREU ROROU RSSRB RURUS RWRWA \
SASAU SBSLB SCSYC SDSDN SESWE SGSGP SHSHN SISVN SJSJM SKSVK SLSLE SMSMR SNSEN SOSOM SRSUR SSSSD \
STSTP SVSLV SXSXM SYSYR SZSWZ TCTCA TDTCD TFATF TGTGO THTHA TJTJK TKTKL TLTLS TMTKM TNTUN TOTON \
TRTUR TTTTO TVTUV TWTWN TZTZA UAUKR UGUGA UMUMI USUSA UYURY UZUZB VAVAT VCVCT VEVEN VGVGB VIVIR \
VNVNM VUVUT WFWLF WSWSM YEYEM YTMYT ZAZAF ZMZMB ZWZWE";

/// The country as alpha-3 in capitals; nothing where it is no letters of a known length.
/// An alpha-3 code that ISO does not have is kept: it simply matches no target.
pub fn alpha3(code: &str) -> Option<String> {
    if !code.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return None;
    }
    let code = code.to_ascii_uppercase();
    match code.len() {
        3 => Some(code),
        2 if code == "UK" => Some("GBR".to_owned()), // reserved for it, and in use
        2 => pairs().find_map(|pair| pair.strip_prefix(code.as_str())).map(str::to_owned),
        _ => None,
    }
}

fn pairs() -> impl Iterator<Item = &'static str> {
    CODES.split(' ').chain([IN_USE])
}

/// Checks a code that somebody wrote: three capitals, and in force or in use, because requests have hardly any other.
///
/// # Errors
/// What is wrong, with the code that was probably meant.
pub fn check(code: &str) -> Result<(), String> {
    let known = |code: &str| code.len() == 3 && pairs().any(|pair| &pair[2..] == code);
    if known(code) {
        return Ok(());
    }
    let meant = alpha3(code).filter(|code| known(code));
    let meant = meant.map_or_else(String::new, |code| format!(": did you mean {code}?"));
    let shown: String = code.chars().take(20).collect();
    Err(format!("{shown:?} is no country of ISO 3166-1 alpha-3{meant}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn knows_every_country_once() {
        let pairs: Vec<&str> = CODES.split(' ').collect();
        assert_eq!(pairs.len(), 249);
        assert!(pairs.iter().all(|pair| pair.len() == 5));
        let two: BTreeSet<_> = pairs.iter().map(|pair| &pair[..2]).collect();
        let three: BTreeSet<_> = pairs.iter().map(|pair| &pair[2..]).collect();
        assert_eq!((two.len(), three.len()), (249, 249));
    }

    #[test]
    fn widens_two_letters_and_keeps_three() {
        assert_eq!(alpha3("us").as_deref(), Some("USA"));
        assert_eq!(alpha3("RU").as_deref(), Some("RUS"));
        assert_eq!(alpha3("deu").as_deref(), Some("DEU"));
        assert_eq!(alpha3("TST").as_deref(), Some("TST"));
        assert_eq!(alpha3("uk").as_deref(), Some("GBR"));
        assert_eq!(alpha3("XX"), None);
        assert_eq!(alpha3("U1"), None);
        assert_eq!(alpha3(""), None);
    }
    #[test]
    fn names_what_was_meant() {
        let error = |code| check(code).expect_err("no code in force");
        assert_eq!((check("FRA"), check("XKX")), (Ok(()), Ok(())));
        assert_eq!(error("FR"), "\"FR\" is no country of ISO 3166-1 alpha-3: did you mean FRA?");
        assert!(error("UK").ends_with("did you mean GBR?"));
        assert!(error("deu").ends_with("did you mean DEU?"), "conditions compare capitals");
        for none in ["", "XX", "XXX", "ANT", "RAF", "DEUT", "A F", "D\u{c9}U"] {
            assert!(error(none).ends_with("alpha-3"), "{none}");
        }
    }
}
