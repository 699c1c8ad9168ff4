#![allow(clippy::unwrap_used)]

use super::*;

fn subject(client: &str, byte: u8) -> Subject {
    Subject { client: client.into(), customer: CustomerKey([byte; 16]) }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self) -> PathBuf {
        self.0.path().join("keys/subjects")
    }
    fn open(&self) -> KeyFile {
        KeyFile::open(&self.path()).unwrap()
    }
    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }
    fn holds(&self, key: &Key) -> bool {
        self.bytes().windows(8).any(|window| key.bytes().windows(8).any(|part| part == window))
    }
}

#[test]
fn a_key_is_one_for_each_customer_of_each_client_and_survives_a_restart() {
    let folder = Folder::new();
    let wanted = [subject("acme", 1), subject("acme", 2), subject("globex", 1), subject("acme", 1)];
    let made = folder.open().obtain(&wanted).unwrap();
    assert_eq!((made[0] == made[3], made[0] == made[1], made[0] == made[2]), (true, false, false));
    let mut again = folder.open();
    assert!(again.obtain(&wanted).unwrap() == made);
    assert!(again.find(&wanted[2]).unwrap().as_ref() == Some(&made[2]));
    assert_eq!(folder.bytes().len(), 3 * SLOT);
}

#[test]
fn makes_no_file_for_who_has_nothing_to_keep() {
    let folder = Folder::new();
    let mut keys = folder.open();
    assert!(keys.find(&subject("acme", 1)).unwrap().is_none());
    assert!(keys.destroy(&subject("acme", 1)).unwrap().is_empty());
    assert!(!folder.path().exists());
    keys.obtain(&[subject("acme", 1)]).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_destroyed_key_is_due_until_the_log_has_it_and_never_comes_back() {
    let folder = Folder::new();
    let (ada, bob) = (subject("acme", 1), subject("acme", 2));
    let mut keys = folder.open();
    let made = keys.obtain(&[ada.clone(), bob.clone()]).unwrap();
    let ids = keys.destroy(&ada).unwrap();
    assert_eq!(ids, [key_id(&made[0])]);
    assert!(!folder.holds(&made[0]) && folder.holds(&made[1]));
    // The caller asks again, or the process ends here.
    assert_eq!(keys.destroy(&ada).unwrap(), ids);
    let mut keys = folder.open();
    assert!(keys.find(&ada).unwrap().is_none());
    assert_eq!(keys.due(), [("acme".to_owned(), ids[0])]);
    // She buys again: another key, and the old one is still due.
    let fresh = keys.obtain(std::slice::from_ref(&ada)).unwrap();
    assert!(fresh[0] != made[0]);
    assert_eq!(keys.destroy(&ada).unwrap().len(), 2);
    keys.forget(&ids).unwrap();
    keys.forget(&[key_id(&fresh[0])]).unwrap();
    assert!(keys.due().is_empty() && folder.open().due().is_empty());
    // Their slots are taken again, and nothing of the customer is left in the file.
    assert!(!folder.bytes().windows(16).any(|window| window == [1; 16]));
    keys.obtain(&[subject("acme", 3), subject("acme", 4)]).unwrap();
    assert_eq!(folder.bytes().len(), 3 * SLOT);
    assert!(folder.open().find(&bob).unwrap().as_ref() == Some(&made[1]));
}

/// A crash in the middle of making a key, after each byte: the old keys stay, and half a key is never taken for one.
#[test]
fn a_key_that_a_crash_left_half_made_is_none() {
    let folder = Folder::new();
    let (ada, bob) = (subject("acme", 1), subject("acme", 2));
    let mut keys = folder.open();
    let before = keys.obtain(std::slice::from_ref(&ada)).unwrap();
    let lost = keys.obtain(std::slice::from_ref(&bob)).unwrap();
    let whole = folder.bytes();
    for len in 0..SLOT {
        // Bytes that were not written are not there, or are zeroes.
        for zeroes in [false, true] {
            let mut torn = whole.clone();
            torn[SLOT + len..].fill(0);
            torn.truncate(if zeroes { 2 * SLOT } else { SLOT + len });
            std::fs::write(folder.path(), &torn).unwrap();
            let mut keys = folder.open();
            assert!(keys.find(&ada).unwrap().as_ref() == Some(&before[0]), "{len}");
            assert!(keys.find(&bob).unwrap().is_none(), "{len}");
            assert!(!folder.holds(&lost[0]), "{len}: part of the key is left");
            assert!(keys.obtain(std::slice::from_ref(&bob)).unwrap() != lost);
        }
    }
}

/// A crash in the middle of destroying a key: it is as it was, and was not acknowledged, or it is gone.
#[test]
fn a_key_that_a_crash_left_half_destroyed_is_gone() {
    let folder = Folder::new();
    let ada = subject("acme", 1);
    let mut keys = folder.open();
    let key = keys.obtain(std::slice::from_ref(&ada)).unwrap().remove(0);
    let whole = folder.bytes();
    for done in 0..=SLOT - KEY {
        for from_end in [false, true] {
            let mut torn = whole.clone();
            let range = if from_end { SLOT - done..SLOT } else { KEY..KEY + done };
            torn[range].fill(0);
            let untouched = torn == whole;
            std::fs::write(folder.path(), &torn).unwrap();
            let keys = folder.open();
            assert_eq!(keys.find(&ada).unwrap().is_some(), untouched, "{done}");
            assert_eq!(keys.due(), if untouched { vec![] } else { vec![("acme".to_owned(), key_id(&key))] }, "{done}");
            assert_eq!(folder.holds(&key), untouched, "{done}");
        }
    }
}

/// A crash in the middle of freeing a slot: the rest of the record is cleared, and no key comes of it.
#[test]
fn a_slot_that_a_crash_left_half_freed_holds_nobody() {
    let folder = Folder::new();
    let ada = subject("acme", 1);
    let mut keys = folder.open();
    keys.obtain(std::slice::from_ref(&ada)).unwrap();
    keys.destroy(&ada).unwrap();
    let whole = folder.bytes();
    for done in 1..=KEY {
        let mut torn = whole.clone();
        torn[..done].fill(0);
        std::fs::write(folder.path(), &torn).unwrap();
        let keys = folder.open();
        assert!(keys.find(&ada).unwrap().is_none() && keys.due().is_empty(), "{done}");
        assert_eq!(folder.bytes(), [0; SLOT], "{done}");
    }
}

#[test]
fn damage_and_a_reader_change_nothing_that_is_whole() {
    let folder = Folder::new();
    let (ada, bob) = (subject("acme", 1), subject("acme", 2));
    let made = folder.open().obtain(&[ada.clone(), bob.clone()]).unwrap();
    let mut bytes = folder.bytes();
    bytes[KEY] ^= 1;
    std::fs::write(folder.path(), &bytes).unwrap();
    let mut reader = KeyFile::look_at(&folder.path()).unwrap();
    assert!(reader.find(&ada).unwrap().is_none());
    assert!(reader.find(&bob).unwrap().as_ref() == Some(&made[1]));
    assert!(reader.obtain(&[ada]).is_err() && reader.destroy(&bob).is_err());
    assert_eq!(folder.bytes(), bytes);
}
