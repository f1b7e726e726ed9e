//! What a process and all its descendants cost, as the kernel counts it.
//!
//! CPU time is the sum of `/proc/PID/task/*/schedstat` (nanoseconds run), and
//! where a thread ended in between, the coarser utime + stime of
//! `/proc/PID/stat`, which keeps ended threads' time. Memory is `VmRSS` and
//! `VmHWM` of `/proc/PID/status`. Never samples: it reads counters.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// CPU time and memory of a process and its descendants.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// By pid: what it has run since it was started.
    cpu_by_pid: BTreeMap<u32, CpuTime>,
    /// Resident now, KiB.
    pub resident_kib: u64,
    /// Each process's peak resident, summed, KiB.
    pub peak_resident_kib: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct CpuTime {
    /// Nanoseconds run by the threads alive.
    threads_ns: u64,
    /// Nanoseconds run by the process, ended threads included; in ticks of 10 ms.
    process_ns: u64,
}

impl Cost {
    /// Reads the counters of `root` and everything it started.
    pub fn of_tree(root: u32) -> Self {
        let mut cost = Self::default();
        for pid in tree(root) {
            let Some(stat) = Stat::read(pid) else {
                continue;
            };
            let tick_ns = 1_000_000_000 / rustix::param::clock_ticks_per_second();
            let time = CpuTime {
                threads_ns: threads_ns(pid),
                process_ns: stat.cpu_ticks * tick_ns,
            };
            cost.cpu_by_pid.insert(pid, time);
            let (resident, peak) = resident_kib(pid);
            cost.resident_kib += resident;
            cost.peak_resident_kib += peak;
        }
        cost
    }

    /// CPU time spent between `earlier` and this.
    pub fn cpu_since(&self, earlier: &Self) -> Duration {
        let nanoseconds = self.cpu_by_pid.iter().map(|(pid, now)| {
            let before = earlier.cpu_by_pid.get(pid).copied().unwrap_or_default();
            let threads = now.threads_ns.saturating_sub(before.threads_ns);
            let process = now.process_ns.saturating_sub(before.process_ns);
            // Ticks are coarse: they win only when they saw clearly more, which
            // means that a thread ended and took its schedstat with it.
            let ended_threads = process > threads + threads / 20 + 30_000_000;
            if ended_threads { process } else { threads }
        });
        Duration::from_nanos(nanoseconds.sum())
    }
}

/// The fields of `/proc/PID/stat` read here.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    cpu_ticks: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// proc_pid_stat(5): after the command in parentheses, which may itself
    /// hold any character, the fields are separated by spaces.
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.get(line.rfind(')')? + 2..)?.split(' ').collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            parent: u32::try_from(number(4)?).ok()?,
            cpu_ticks: number(14)? + number(15)?,
        })
    }
}

/// `root` and all its descendants.
pub fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, Stat::read(pid)?.parent)))
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// What `root` and its descendants hold together, KiB: pages that several of
/// them share are counted once (`Pss` of `/proc/PID/smaps_rollup`).
pub fn proportional_kib(root: u32) -> u64 {
    let of = |pid: u32| -> Option<u64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    tree(root).into_iter().filter_map(of).sum()
}

/// schedstat's first field is the time run, in nanoseconds.
fn threads_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    tasks
        .filter_map(|task| {
            let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
            line.split(' ').next()?.parse::<u64>().ok()
        })
        .sum()
}

/// `VmRSS` and `VmHWM`, KiB.
pub fn resident_kib(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':')
            .trim()
            .strip_suffix(" kB")?
            .parse()
            .ok()
    };
    (field("VmRSS").unwrap_or(0), field("VmHWM").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_survives_a_command_with_spaces_and_parentheses() {
        let line = "42 (a) (b c)) S 7 42 42 0 -1 4194560 1 2 3 4 150 25 9 9 20 0 1 0 100 1 1";
        assert_eq!(
            Stat::parse(line),
            Some(Stat {
                parent: 7,
                cpu_ticks: 175
            })
        );
        assert_eq!(Stat::parse("42 (cut"), None);
    }

    #[test]
    fn work_of_this_process_is_counted() {
        let before = Cost::of_tree(std::process::id());
        let began = std::time::Instant::now();
        let mut spun = 0_u64;
        while began.elapsed() < Duration::from_millis(60) {
            spun = std::hint::black_box(spun + 1);
        }
        let after = Cost::of_tree(std::process::id());
        assert!(
            after.cpu_since(&before) >= Duration::from_millis(5),
            "{:?}",
            after.cpu_since(&before)
        );
        assert!(after.resident_kib > 100 && after.peak_resident_kib >= after.resident_kib / 2);
    }
}
