//! What the system says about our processes, from `/proc`; their descriptors,
//! which it shows to nobody of another user, they tell themselves.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use crate::heritage::{ProcessStatus, Role, open_descriptors};

/// `/proc` counts processor time in these, whatever the kernel's own tick
/// (`USER_HZ`, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Open descriptors by process id, as the edges reported them.
pub(super) type Descriptors = BTreeMap<u32, u64>;

/// A process, as the system sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open descriptors; `None`: the process did not tell.
    pub descriptors: Option<u64>,
    /// Processor time, user and system.
    pub cpu_seconds: f64,
    /// Threads.
    pub threads: u64,
}

/// `None`: there is no such process, or it is not ours to look at.
pub(super) fn usage(process: &ProcessStatus, reported: &Descriptors) -> Option<Usage> {
    let pid = process.pid;
    if pid == 0 {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let descriptors = match process.role {
        Role::Supervisor => process.open_descriptors,
        Role::Edge => reported.get(&pid).copied(),
        Role::Control => open_descriptors().filter(|_| pid == std::process::id()),
    };
    Some(Usage {
        resident_bytes: status_field(&status, "VmRSS:")? * 1024,
        descriptors,
        cpu_seconds: cpu_seconds(&stat)?,
        threads: status_field(&status, "Threads:")?,
    })
}

/// Resident memory of a process, bytes.
pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(status_field(&status, "VmRSS:")? * 1024)
}

fn status_field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Fields 14 and 15, counted from behind the command's name, which may hold
/// spaces and parentheses.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heritage::ProcessState;

    fn process(role: Role, pid: u32) -> ProcessStatus {
        ProcessStatus {
            role,
            pid,
            state: ProcessState::Ready,
            started_at_ms: 0,
            restarts: 0,
            last_exit: None,
            open_descriptors: (role == Role::Supervisor).then_some(9),
            upgrade: None,
            obituaries: Vec::new(),
        }
    }

    #[test]
    fn this_process_uses_something_and_each_tells_of_its_descriptors() {
        let own = std::process::id();
        let reported = Descriptors::from([(own, 7)]);
        let of = |role| usage(&process(role, own), &reported).unwrap();
        let control = of(Role::Control);
        assert!(control.resident_bytes > 100_000, "{control:?}");
        assert!(control.threads >= 1, "{control:?}");
        assert!(control.descriptors >= Some(3), "{control:?}");
        assert_eq!(of(Role::Edge).descriptors, Some(7));
        assert_eq!(of(Role::Supervisor).descriptors, Some(9));
        let silent = usage(&process(Role::Edge, own), &Descriptors::new());
        assert_eq!(silent.unwrap().descriptors, None);
    }

    #[test]
    fn nobody_uses_nothing() {
        for pid in [0, u32::MAX] {
            assert_eq!(usage(&process(Role::Edge, pid), &Descriptors::new()), None);
        }
    }

    #[test]
    fn a_commands_name_may_hold_anything() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_seconds(stat), Some(3.0));
    }
}
