#![allow(clippy::unwrap_used)]
//! The keys and notes are those of Go's `sumdb/note` tests, and the specification's example.

use super::*;

const PETER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const PETER_SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const ENOCH: &str = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop";
const TEXT: &str = "If you think cryptography is the answer to your problem,\n\
    then you don't know what your problem is.\n";
const PETER_LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
const ENOCH_LINE: &str = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";

fn open(note: &str, keys: &[&str]) -> Result<usize, Error> {
    let keys: Vec<VerifyingKey> = keys.iter().map(|k| k.parse().unwrap()).collect();
    Note::parse(note.as_bytes())?.verify(&keys.iter().collect::<Vec<_>>())
}

#[test]
fn signs_like_go() {
    let key: SigningKey = PETER_SECRET.parse().unwrap();
    assert_eq!(key.verifying_key().to_string(), PETER);
    assert_eq!(key.to_secret_text(), PETER_SECRET);
    let note = Note::sign(TEXT, &key).unwrap();
    assert_eq!(note.to_string(), format!("{TEXT}\n{PETER_LINE}"));
    assert_eq!(Note::parse(note.to_string().as_bytes()).unwrap(), note);
}

#[test]
fn opens_the_specification_s_example() {
    let note = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let key = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    assert_eq!(open(note, &[key]), Ok(1));
}

#[test]
fn ignores_signatures_by_unknown_keys_but_wants_a_known_one() {
    let note = format!("{TEXT}\n{PETER_LINE}{ENOCH_LINE}");
    assert_eq!(open(&note, &[PETER]), Ok(1));
    assert_eq!(open(&note, &[PETER, ENOCH]), Ok(2));
    assert_eq!(open(&note, &[ENOCH, PETER, ENOCH]), Ok(2));
    assert_eq!(open(&note, &[]), Err(Error::Unverified { signatures: 2 }));
}

#[test]
fn one_false_signature_of_a_known_key_condemns_the_note() {
    let corrupt = PETER_LINE.replace("x08go/ZJ", "x08go/ZK");
    let note = format!("{TEXT}\n{PETER_LINE}{corrupt}");
    let error = open(&note, &[PETER]).unwrap_err();
    assert_eq!(error.to_string(), "invalid signature for key PeterNeumann+c74f20a3");
    assert_eq!(open(&format!("{note}{ENOCH_LINE}"), &[ENOCH]), Ok(1));
}

#[test]
fn refuses_what_is_not_a_note() {
    for bad in [
        TEXT.to_owned(),
        format!("{TEXT}\n"),
        format!("{TEXT}{PETER_LINE}"),
        format!("{TEXT}\n{}", PETER_LINE.trim_end()),
        format!("{TEXT}\n\n"),
        format!("\x01{TEXT}\n{PETER_LINE}"),
        format!("a\tb\n\n{PETER_LINE}"),
        format!("a\r\n\n{PETER_LINE}"),
        format!("\n\n{PETER_LINE}\n"),
        format!("{TEXT}\n{PETER_LINE}unexpected line\n"),
        format!("{TEXT}\n— Bad Name {}", &PETER_LINE[17..]),
        format!("{TEXT}\n— Bad+Name {}", &PETER_LINE[17..]),
        format!("{TEXT}\n— Name AAAAAA==\n"),
        format!("{TEXT}\n— Name AAAAAAB=\n"),
        format!("{TEXT}\n{}", PETER_LINE.repeat(MAX_SIGNATURES + 1)),
        format!("{}\n\n{PETER_LINE}", "a".repeat(MAX_NOTE_BYTES)),
    ] {
        let error = Note::parse(bad.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Malformed(_)), "{error} for {:.200}", bad);
    }
    assert_eq!(open(&format!("{TEXT}\n{}", PETER_LINE.repeat(MAX_SIGNATURES)), &[PETER]), Ok(1));
}

#[test]
fn splits_at_the_last_empty_line() {
    let key: SigningKey = PETER_SECRET.parse().unwrap();
    let note = Note::sign("a\n\n— b AAAAAAAA\n\nc\n", &key).unwrap();
    assert_eq!(Note::parse(note.to_string().as_bytes()).unwrap(), note);
}

#[test]
fn refuses_mangled_keys() {
    fn refuses_all_but_whole<K: std::str::FromStr>(text: &str) {
        assert!(text.parse::<K>().is_ok());
        for start in 0..text.len() {
            for end in start..=text.len() {
                if (start, end) != (0, text.len()) {
                    assert!(text[start..end].parse::<K>().is_err(), "{}", &text[start..end]);
                }
            }
        }
        for at in 0..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] += 1;
            let mangled = String::from_utf8(bytes).unwrap();
            assert!(mangled.parse::<K>().is_err(), "{mangled}");
        }
    }
    refuses_all_but_whole::<VerifyingKey>(PETER);
    refuses_all_but_whole::<SigningKey>(PETER_SECRET);
    for bad in [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "",
        "++",
    ] {
        assert!(bad.parse::<VerifyingKey>().is_err(), "{bad}");
    }
}

#[test]
fn refuses_bad_names_and_unsignable_texts() {
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\u{2003}", "a\nb", "a\u{1}"] {
        assert!(SigningKey::new(name, &[1; 32]).is_err(), "{name:?}");
    }
    let key = SigningKey::new("k", &[1; 32]).unwrap();
    for text in ["", "abc", "a\tb\n", "\u{1}\n"] {
        assert!(Note::sign(text, &key).is_err(), "{text:?}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let key: SigningKey = PETER_SECRET.parse().unwrap();
    assert_eq!(format!("{key:?}"), format!("SigningKey({PETER})"));
}
