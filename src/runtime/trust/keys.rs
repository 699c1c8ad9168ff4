//! API keys. A key is `kiki_ID_SECRET`, 32 random bytes as 64 hexadecimal digits behind its id; a service keeps no more of it than its SHA-256.
//! The secret is random, so that a slow hash would gain nothing.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::TrustError;
use super::tls::Changing;
use crate::clock::UnixMicros;
use crate::ids::{self, Key, KeyError};
use crate::roles::Granted;

/// Keys of a file, and its bytes: 200 a line.
const KEYS_MAX: usize = 10_000;
const FILE_MAX: u64 = 2 << 20;
const SETTING: &str = "KIKI_API_KEYS";
const PREFIX: &str = "kiki_";

/// An API key, whole: never printed.
#[derive(Clone)]
pub struct ApiKey {
    id: String,
    text: String,
}

impl ApiKey {
    /// A new key.
    ///
    /// # Errors
    /// The id is none, or the operating system has no randomness.
    pub fn random(id: &str) -> std::io::Result<Self> {
        check_id(id).map_err(std::io::Error::other)?;
        let secret = Key::random().map_err(|e| std::io::Error::other(e.to_string()))?;
        Ok(Self { id: id.to_owned(), text: format!("{PREFIX}{id}_{}", hex::encode(secret.bytes())) })
    }

    /// The key that a setting gives, or the file that it names.
    ///
    /// # Errors
    /// Neither. What was given is not repeated: it may be a secret that was mistyped.
    pub fn given(text: &str) -> Result<Self, KeyError> {
        let own = text.trim().to_owned();
        let own = if own.starts_with(PREFIX) { own } else { std::fs::read_to_string(&own).map_err(|_| KeyError)?.trim().to_owned() };
        let id = parts(&own).ok_or(KeyError)?.0.to_owned();
        Ok(Self { id, text: own })
    }

    /// As it is sent: the value of `authorization`.
    #[must_use]
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.text)
    }

    /// The key itself, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Its line in a file of keys.
    #[must_use]
    pub fn line(&self, role: &str, until: jiff::Timestamp) -> KeyLine {
        KeyLine(format!("{} {role} {} {until}", self.id, hex::encode(Sha256::digest(self.text.as_bytes()))))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id)
    }
}

/// A line of a file of keys; it says nothing that is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine(String);

impl fmt::Display for KeyLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id is a part of the key, and must not have the sign that ends it.
fn check_id(id: &str) -> Result<(), String> {
    ids::check("id", id).map_err(|e| e.to_string())?;
    if id.contains('_') { Err(format!("id: {id:?}: an API key's has no _")) } else { Ok(()) }
}

/// The id and the secret.
fn parts(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let good = secret.len() == 64 && secret.bytes().all(|digit| digit.is_ascii_hexdigit());
    (good && check_id(id).is_ok()).then_some((id, secret))
}

/// A key that does not do: its id where it is one that is known, and why.
pub(super) struct Refused {
    pub(super) id: Arc<str>,
    pub(super) why: String,
}

struct Known {
    id: Arc<str>,
    granted: Granted,
    sha256: [u8; 32],
    until: UnixMicros,
}

/// The keys of a file, as it now is.
pub(super) struct Keys {
    path: PathBuf,
    known: Changing<HashMap<String, Known>>,
}

impl Keys {
    pub(super) fn open(path: &Path) -> Result<Self, TrustError> {
        let known = Changing::new(vec![path.to_owned()], read(path)?);
        Ok(Self { path: path.to_owned(), known })
    }

    /// Whose key a value of `authorization` has.
    pub(super) fn find(&self, authorization: &[u8], now: UnixMicros) -> Result<(Arc<str>, Granted), Refused> {
        let unknown = |why: &str| Refused { id: Arc::default(), why: format!("authorization: {why}") };
        let text = std::str::from_utf8(authorization).ok().and_then(|text| text.split_once(' '));
        let key = text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
        let key = key.ok_or_else(|| unknown("is not \"Bearer KEY\""))?;
        let (id, _) = parts(key).ok_or_else(|| unknown("is not an API key"))?;
        let keys = self.known.get(|| read(&self.path));
        // One answer for an id and for a secret that are not known.
        let good = |known: &&Known| bool::from(known.sha256.ct_eq(&Sha256::digest(key.as_bytes())));
        let known = keys.get(id).filter(good).ok_or_else(|| unknown("no such API key"))?;
        if known.until <= now {
            return Err(Refused { id: known.id.clone(), why: format!("authorization: the API key {id} has expired") });
        }
        Ok((known.id.clone(), known.granted.clone()))
    }
}

fn read(path: &Path) -> Result<HashMap<String, Known>, TrustError> {
    let wrong = |problem: String| TrustError::File { setting: SETTING, path: path.display().to_string(), problem };
    let size = std::fs::metadata(path).map_err(|e| wrong(e.to_string()))?.len();
    if size > FILE_MAX {
        return Err(wrong(format!("{size} bytes are more than {FILE_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
    let mut keys = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
        let known = line_of(line).map_err(|problem| wrong(format!("line {}: {problem}", number + 1)))?;
        if keys.insert(known.id.to_string(), known).is_some() {
            return Err(wrong(format!("line {}: the id was there already", number + 1)));
        }
    }
    if keys.len() > KEYS_MAX {
        return Err(wrong(format!("{} keys are more than {KEYS_MAX}", keys.len())));
    }
    Ok(keys)
}

fn line_of(line: &str) -> Result<Known, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [id, role, digest, until] = words[..] else { return Err("is not: id role sha256 until".to_owned()) };
    check_id(id)?;
    let granted = role.parse().map_err(|e: crate::roles::NoRole| e.to_string())?;
    let sha256 = hex::decode(digest).ok().and_then(|digest| digest.try_into().ok());
    let sha256 = sha256.ok_or("sha256: is not 64 hexadecimal digits")?;
    let until: jiff::Timestamp = until.parse().map_err(|_| format!("until: {until:?} is not an instant as 2027-01-01T00:00:00Z"))?;
    Ok(Known { id: id.into(), granted, sha256, until: UnixMicros(until.as_microsecond()) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::roles::Role;

    const LATE: UnixMicros = UnixMicros(1_800_000_000_000_000); // in 2027
    const EARLY: UnixMicros = UnixMicros(1_700_000_000_000_000); // in 2023

    fn file(lines: &[String]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), lines.join("\n")).unwrap();
        file
    }

    #[test]
    fn a_key_is_known_by_its_digest_until_it_expires() {
        let key = ApiKey::random("acme-1").unwrap();
        let line = key.line("tenant:acme", "2025-06-01T00:00:00Z".parse().unwrap());
        assert!(!line.to_string().contains(key.reveal().rsplit('_').next().unwrap()), "the file has no secret");
        assert_eq!(format!("{key:?}"), "ApiKey(acme-1)");
        let file = file(&["# keys".to_owned(), line.to_string()]);
        let keys = Keys::open(file.path()).unwrap();
        let (id, granted) = keys.find(key.bearer().as_bytes(), EARLY).ok().unwrap();
        assert_eq!((&*id, granted.role), ("acme-1", Role::Tenant));
        let expired = keys.find(key.bearer().as_bytes(), LATE).err().unwrap();
        assert_eq!((&*expired.id, expired.why.as_str()), ("acme-1", "authorization: the API key acme-1 has expired"));
        let other = ApiKey::random("acme-1").unwrap().bearer();
        for wrong in [other.as_str(), "Bearer x", "Basic YTpi", "", "Bearer kiki_acme-1_"] {
            assert!(keys.find(wrong.as_bytes(), EARLY).err().unwrap().id.is_empty(), "{wrong}");
        }
    }

    #[test]
    fn a_file_that_is_not_of_its_form_names_the_line() {
        let key = ApiKey::random("a").unwrap();
        let good = key.line("operator", jiff::Timestamp::MAX).to_string();
        for (lines, problem) in [
            (vec![good.clone(), "a operator".to_owned()], "line 2: is not: id role sha256 until"),
            (vec![good.clone(), good.clone()], "line 2: the id was there already"),
            (vec![good.replace("operator", "root")], "line 1: \"root\" is no role"),
            (vec![good.replacen("a ", "a_b ", 1)], "line 1: id: \"a_b\""),
        ] {
            let file = file(&lines);
            let refused = Keys::open(file.path()).err().unwrap().to_string();
            assert!(refused.starts_with("KIKI_API_KEYS: ") && refused.contains(problem), "{refused}");
        }
    }
}
