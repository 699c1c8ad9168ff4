//! Which node serves which key: Redis Cluster's slots.
//!
//! Sources: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/> and the command CLUSTER SLOTS.

use ::redis::Value;

/// Slots of a cluster.
pub(super) const SLOTS: u16 = 16_384;

/// Slots in a row, and where their master is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    /// None where it is that of the node that was asked.
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

/// A key's slot: CRC-16/XMODEM modulo 16,384. Our keys have no `{`, so that all of a key is hashed.
pub(super) fn slot(key: &str) -> u16 {
    let crc = key.bytes().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 })
    });
    crc % SLOTS
}

/// Reads the answer to CLUSTER SLOTS; none where it is not one. A range whose master has no known address is left out.
pub(super) fn ranges(answer: &Value) -> Option<Vec<Range>> {
    let Value::Array(items) = answer else { return None };
    let mut ranges = Vec::with_capacity(items.len());
    for item in items {
        let Value::Array(parts) = item else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = parts.as_slice() else { return None };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::Nil => None,
            Value::BulkString(host) => Some(String::from_utf8(host.clone()).ok()?).filter(|host| !host.is_empty()),
            _ => return None,
        };
        if host.as_deref() != Some("?") {
            let number = |number: i64| u16::try_from(number).ok();
            ranges.push(Range { first: number(*first)?, last: number(*last)?, host, port: number(*port)? });
        }
    }
    ranges.sort_by_key(|range| range.first);
    Some(ranges)
}

/// Where MOVED and ASK send one, by their text: `SLOT HOST:PORT`, without a host where it is that of the node that said it.
pub(super) fn redirect(text: &str) -> Option<(Option<&str>, u16)> {
    let (host, port) = text.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    Some((Some(host).filter(|host| !host.is_empty() && *host != "?"), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(slot("123456789"), 0x31c3); // the specification's own example
        assert_eq!(slot("foo"), 12_182); // CLUSTER KEYSLOT foo
        assert_eq!(slot(""), 0);
    }

    #[test]
    fn ranges_are_read_with_and_without_hosts() {
        let node = |host: Value| Value::Array(vec![host, Value::Int(7_000), Value::BulkString(b"id".to_vec())]);
        let item = |first, last, host| Value::Array(vec![Value::Int(first), Value::Int(last), node(host), node(Value::Nil)]);
        let answer = Value::Array(vec![
            item(100, 16_383, Value::Nil),
            item(0, 49, Value::BulkString(b"10.0.0.1".to_vec())),
            item(50, 99, Value::BulkString(b"?".to_vec())),
        ]);
        let range = |first, last, host: Option<&str>| Range { first, last, host: host.map(str::to_owned), port: 7_000 };
        assert_eq!(ranges(&answer), Some(vec![range(0, 49, Some("10.0.0.1")), range(100, 16_383, None)]));
        for bad in [Value::Int(1), Value::Array(vec![Value::Nil]), Value::Array(vec![item(0, 70_000, Value::Nil)])] {
            assert_eq!(ranges(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn redirects_are_read() {
        assert_eq!(redirect("3999 127.0.0.1:6381"), Some((Some("127.0.0.1"), 6_381)));
        assert_eq!(redirect("3999 ::1:6381"), Some((Some("::1"), 6_381)));
        assert_eq!(redirect("3999 :6381"), Some((None, 6_381)));
        assert_eq!(redirect("3999"), None);
    }
}
