//! What is asked of Redis, and how a state lies there: its number of events as 8 bytes, big-endian, and its bytes behind them.

use ::redis::{Pipeline, Value};
use bytes::Bytes;

use super::super::{Change, Error, Key, State};

/// Puts a value where the stored one begins with the expected number. Numbers are compared as bytes: Lua's are doubles.
pub(super) const SCRIPT: &str = "
if redis.call('GETRANGE', KEYS[1], 0, 7) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  return 1
end
if redis.call('GET', KEYS[1]) == ARGV[2] then return 1 end
return 0";

/// Bytes of the number.
const NUMBER: usize = 8;

/// A command for one key.
#[derive(Debug)]
pub(super) struct Command {
    /// The key's name in Redis.
    pub(super) key: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Get,
    /// The expected number, nothing for 0, and the value.
    Put(Vec<u8>, Vec<u8>),
    Erase,
}

impl Command {
    pub(super) fn get(key: &Key) -> Self {
        Self { key: name(key), what: What::Get }
    }

    pub(super) fn put(change: &Change) -> Self {
        let expected = if change.expected == 0 { Vec::new() } else { change.expected.to_be_bytes().to_vec() };
        let value = [&change.state.events.to_be_bytes(), change.state.bytes.as_ref()].concat();
        Self { key: name(&change.key), what: What::Put(expected, value) }
    }

    pub(super) fn erase(key: &Key) -> Self {
        Self { key: name(key), what: What::Erase }
    }

    /// Adds it to a pipeline. A server that does not know the script by its name gets its `whole` text.
    pub(super) fn add(&self, pipeline: &mut Pipeline, script: &str, whole: bool) {
        match &self.what {
            What::Get => pipeline.cmd("GET").arg(&self.key),
            What::Erase => pipeline.cmd("UNLINK").arg(&self.key),
            What::Put(expected, value) => {
                let run = if whole { pipeline.cmd("EVAL").arg(SCRIPT) } else { pipeline.cmd("EVALSHA").arg(script) };
                run.arg(1).arg(&self.key).arg(expected.as_slice()).arg(value.as_slice())
            }
        };
    }

    /// Reads the answer to a `get`.
    pub(super) fn state(&self, answer: Value) -> Result<Option<State>, Error> {
        match answer {
            Value::Nil => Ok(None),
            Value::BulkString(value) => match value.first_chunk::<NUMBER>() {
                Some(events) => {
                    let events = u64::from_be_bytes(*events);
                    Ok(Some(State { events, bytes: Bytes::from(value).slice(NUMBER..) }))
                }
                None => Err(self.damaged(format!("{} bytes", value.len()))),
            },
            other => Err(self.damaged(format!("{other:?}"))),
        }
    }

    /// Reads the answer to a `put` or an `erase`.
    pub(super) fn done(&self, answer: &Value) -> Result<bool, Error> {
        match answer {
            Value::Int(done) => Ok(*done == 1),
            other => Err(self.damaged(format!("{other:?}"))),
        }
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged { key: self.key.clone(), what: what.chars().take(80).collect() }
    }
}

fn name(key: &Key) -> String {
    format!("kiki:state:{key}")
}
