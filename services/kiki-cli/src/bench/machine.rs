//! What the figures were measured on.

use std::fs;
use std::time::Duration;

use crate::error::{Doing as _, Failure};

/// Ticks of user and system time in a second: Linux has reported 100 to programs on every architecture since 2.6.
const TICKS_PER_SECOND: u64 = 100;

/// The processor's name, and how many of its cores this process may use.
pub(super) fn describe() -> (String, usize) {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.trim().to_owned()));
    (model.unwrap_or_else(|| std::env::consts::ARCH.to_owned()), std::thread::available_parallelism().map_or(1, usize::from))
}

/// The CPU time that a process and its threads have used, in steps of 10 ms.
pub(super) fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).doing(format_args!("reading {path}"))?;
    let ticks = ticks(&text).ok_or_else(|| Failure::new(format!("{path}: not as proc(5) says")))?;
    Ok(Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND))
}

/// utime + stime, the 14th and 15th fields; the second is a name in brackets that may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// What a process has in memory, bytes.
pub(super) fn resident(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).doing(format_args!("reading {path}"))?;
    kilobytes(&text, "VmRSS:").map(|kilobytes| kilobytes * 1_024).ok_or_else(|| Failure::new(format!("{path}: not as proc(5) says")))
}

fn kilobytes(status: &str, field: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(field))?;
    value.trim().strip_suffix(" kB")?.parse().ok()
}

/// The kernel's release.
pub(super) fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_user_and_system_time_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 31 9 9 20 0 8 0 1 2 3";
        assert_eq!(ticks(stat), Some(281));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn reads_what_is_resident_and_not_what_was() {
        let status = "Name:\tkiki\nVmHWM:\t    9000 kB\nVmRSS:\t    1234 kB\n";
        assert_eq!((kilobytes(status, "VmRSS:"), kilobytes(status, "VmSwap:")), (Some(1_234), None));
        assert!(resident(std::process::id()).is_ok_and(|bytes| bytes > 1 << 20));
        assert!(resident(u32::MAX).is_err());
    }

    #[test]
    fn knows_its_own_cpu_time() {
        assert!(cpu_time(std::process::id()).is_ok());
        assert!(cpu_time(u32::MAX).is_err());
    }
}
