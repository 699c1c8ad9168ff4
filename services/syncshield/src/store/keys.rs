//! The key that signs the log: made once, secret to its owner's eyes, and never made anew for a log that has records.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use kiki::tlog::note::SigningKey;

use super::Paths;
use super::disk::{Files, replace};
use crate::error::Error;

/// The key of a data folder, made where there is none; with its public half beside the log.
///
/// # Errors
/// A key of another log, one that is missing where there are records, or the file system's.
pub(super) fn signing_key(paths: &Paths, log_id: &str, has_records: bool) -> Result<SigningKey, Error> {
    let path = paths.key();
    let key = if path.exists() { read(&path, log_id)? } else { make(&path, log_id, has_records)? };
    if !paths.public_key().exists() {
        replace(&Files, &paths.public_key(), format!("{}\n", key.verifying_key()).as_bytes())?;
    }
    Ok(key)
}

fn read(path: &Path, log_id: &str) -> Result<SigningKey, Error> {
    let key: SigningKey = std::fs::read_to_string(path)?.trim().parse()?;
    let name = key.verifying_key().name();
    if name == log_id { Ok(key) } else { Err(Error::Key(format!("{} signs for {name:?}, not for {log_id:?}", path.display()))) }
}

fn make(path: &Path, log_id: &str, has_records: bool) -> Result<SigningKey, Error> {
    if has_records {
        return Err(Error::Key(format!("{} is missing, and the log has records", path.display())));
    }
    let seed = kiki::ids::Key::random().map_err(|e| Error::Key(e.to_string()))?;
    let key = SigningKey::new(log_id, seed.bytes())?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    write_secret(path, &format!("{}\n", key.to_secret_text()))?;
    Ok(key)
}

/// As [`replace`], readable by its owner alone from the first byte.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let next = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
