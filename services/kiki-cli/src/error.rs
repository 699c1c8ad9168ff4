//! What a command says when it fails: one line that names what was being done, to what, and why it did not work.

use std::error::Error;
use std::fmt::Display;

/// A command that failed; the text is for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    /// A failure with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// `what` is a present participle with its object: "reading events.csv".
    ///
    /// # Errors
    /// The failure, with what was being done ahead of its causes.
    fn doing(self, what: impl Display) -> Result<T, Failure>;
}

impl<T, E: Error> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{what}: {}", causes(&error))))
    }
}

/// The error and its causes, each said once: many libraries repeat a cause in their own text.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// What a service answered, without the library's decoration.
#[must_use]
pub fn rpc(what: impl Display, status: &tonic::Status) -> Failure {
    Failure(format!("{what}: {:?}: {}", status.code(), status.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_what_was_done_and_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let error = Err::<(), _>(Outer(std::io::Error::other("disk on fire"))).doing("reading a.csv").expect_err("failed");
        assert_eq!(error.to_string(), "reading a.csv: outer: disk on fire");
    }
}
