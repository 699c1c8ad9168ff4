//! The operator's two secrets of a data folder, made when it is first used: `keys/pseudonym.key` turns customers' ids
//! into pseudonyms, `keys/receipt.key` authenticates receipts. The log's own key is SyncShield's.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiki::ids::Key;

use crate::error::{Doing as _, Failure};

/// Which folder.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The folder of the keys; made when it is not there.
    folder: PathBuf,
}

/// Makes the keys that services share where they are not there: once for all containers of an operator.
///
/// # Errors
/// As [`Keys::open`].
pub fn run(args: &Args) -> Result<(), Failure> {
    Keys::at(&args.folder).map(drop)
}

/// The secrets that the services of one operator share.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Of customers' pseudonyms.
    pub pseudonym: Key,
    /// Of receipts.
    pub receipt: Key,
}

impl Keys {
    /// Reads both from `data/keys`, and makes those that are not there, readable by their owner alone.
    ///
    /// # Errors
    /// A file that cannot be read or made, or does not hold a key.
    pub fn open(data: &Path) -> Result<Self, Failure> {
        Self::at(&data.join("keys"))
    }

    fn at(folder: &Path) -> Result<Self, Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder).doing(format_args!("making {}", folder.display()))?;
        Ok(Self { pseudonym: key(folder, "pseudonym.key")?, receipt: key(folder, "receipt.key")? })
    }
}

fn key(folder: &Path, name: &str) -> Result<Key, Failure> {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => text.parse().doing(format_args!("reading {}", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => make(folder, &path).doing(format_args!("making {}", path.display())),
        Err(error) => Err(error).doing(format_args!("reading {}", path.display())),
    }
}

/// Written beside its place and renamed, so that a crash leaves no half of a key.
fn make(folder: &Path, path: &Path) -> std::io::Result<Key> {
    let key = Key::random().map_err(std::io::Error::other)?;
    write_secret(folder, path, &hex::encode(key.bytes()))?;
    Ok(key)
}

pub(crate) fn write_secret(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn keys_are_made_once_and_are_their_owners_alone() {
        let data = tempfile::tempdir().unwrap();
        let first = Keys::open(data.path()).unwrap();
        let second = Keys::open(data.path()).unwrap();
        assert_eq!((first.pseudonym.bytes(), first.receipt.bytes()), (second.pseudonym.bytes(), second.receipt.bytes()));
        assert_ne!(first.pseudonym.bytes(), first.receipt.bytes());
        let mode = fs::metadata(data.path().join("keys/receipt.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Services are told of them by their paths.
        run(&Args { folder: data.path().join("keys") }).unwrap();
        let path = data.path().join("keys/receipt.key");
        assert_eq!(Key::given(path.to_str().unwrap()).unwrap().bytes(), first.receipt.bytes());
        assert!(Key::given("keys/nowhere").is_err());
    }

    #[test]
    fn a_damaged_key_stops_the_start_and_is_not_repeated() {
        let data = tempfile::tempdir().unwrap();
        Keys::open(data.path()).unwrap();
        fs::write(data.path().join("keys/receipt.key"), "secret").unwrap();
        let error = Keys::open(data.path()).unwrap_err().to_string();
        assert!(error.contains("receipt.key") && !error.contains("secret"), "{error}");
    }
}
