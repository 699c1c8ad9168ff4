//! Lists of names, block and allow, in one look-up for each name that a bid goes by.

use std::borrow::Cow;

use super::hash::Map;
use super::{Mask, PolicyError, WORDS, or, set};

/// How names compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In capitals.
    Code,
    /// In capitals; a tier-1 category (`IAB7`) stands for its tier-2 ones (`IAB7-39`).
    Category,
    /// In lower case; a name stands for its subdomains.
    Domain,
    /// In lower case.
    Plain,
}

/// The rules of one dimension.
#[derive(Debug, Clone)]
pub(super) struct Names {
    form: Form,
    /// All rules that allow.
    allow: Mask,
    allows: bool,
    by_name: Map<String, Spoken>,
}

/// The rules that name a name.
#[derive(Debug, Clone)]
struct Spoken {
    block: Mask,
    allow: Mask,
}

impl Names {
    pub(super) fn new(form: Form, none: &Mask) -> Self {
        Self { form, allow: none.clone(), allows: false, by_name: Map::default() }
    }

    pub(super) fn add(&mut self, rule: usize, allow: bool, names: &[String], path: &str) -> Result<(), PolicyError> {
        for (i, name) in names.iter().enumerate() {
            if !name.is_ascii() {
                return Err(PolicyError::new(format!("{path}[{i}]"), "has letters beyond ASCII; domains are written in punycode"));
            }
            let words = self.allow.len();
            let none = || vec![0; words].into_boxed_slice();
            let name = self.folded(name).into_owned();
            let spoken = self.by_name.entry(name).or_insert_with(|| Spoken { block: none(), allow: none() });
            set(if allow { &mut spoken.allow } else { &mut spoken.block }, rule);
        }
        if allow {
            set(&mut self.allow, rule);
            self.allows = true;
        }
        Ok(())
    }

    /// The name as it is compared; without a copy where it is of that form already, as nearly all are.
    fn folded<'a>(&self, name: &'a str) -> Cow<'a, str> {
        match self.form {
            Form::Code | Form::Category if name.bytes().any(|b| b.is_ascii_lowercase()) => Cow::Owned(name.to_ascii_uppercase()),
            Form::Domain | Form::Plain if name.bytes().any(|b| b.is_ascii_uppercase()) => Cow::Owned(name.to_ascii_lowercase()),
            _ => Cow::Borrowed(name),
        }
    }

    /// The rules that refuse a bid of these names: those that block one of them, and those that allow none of them.
    pub(super) fn check<'a>(&self, names: impl Iterator<Item = &'a str>, hit: &mut [u64]) {
        if self.by_name.is_empty() {
            return;
        }
        let mut buffer = [0_u64; WORDS];
        let allowed = &mut buffer[..self.allow.len()];
        for name in names.filter(|name| !name.is_empty()) {
            self.each(&self.folded(name), |spoken| {
                or(hit, &spoken.block);
                or(allowed, &spoken.allow);
            });
        }
        if self.allows {
            let refused = self.allow.iter().zip(allowed.iter());
            hit.iter_mut().zip(refused).for_each(|(hit, (all, allowed))| *hit |= all & !allowed);
        }
    }

    /// What is said of a name and of those that stand for it.
    fn each(&self, name: &str, mut say: impl FnMut(&Spoken)) {
        let mut say = |name: &str| {
            if let Some(spoken) = self.by_name.get(name) {
                say(spoken);
            }
        };
        say(name);
        match self.form {
            Form::Code | Form::Plain => {}
            Form::Category => {
                if let Some((tier1, _)) = name.split_once('-') {
                    say(tier1);
                }
            }
            Form::Domain => {
                let mut rest = name;
                while let Some((_, parent)) = rest.split_once('.') {
                    say(parent);
                    rest = parent;
                }
            }
        }
    }
}
