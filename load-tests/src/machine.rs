//! Where the harness runs: the machine's name for the report, its cores, its
//! limits, the folder of the builds.

use std::fs;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity, set_current_timer_slack};
use serde::{Deserialize, Serialize};

/// What a figure must be read with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// CPU model.
    pub cpu: String,
    /// Cores online.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
    /// Distribution.
    pub system: String,
    /// Memory, MiB.
    pub memory_mib: u64,
}

impl Machine {
    /// Reads `/proc` and `/etc/os-release`; what is not there is "unknown".
    pub fn here() -> Self {
        let field = |file: &str, name: &str, separator: char| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_default();
            line.split_once(separator).map_or_else(
                || "unknown".to_owned(),
                |(_, value)| value.trim().trim_matches('"').to_owned(),
            )
        };
        let memory_kib: u64 = field("/proc/meminfo", "MemTotal", ':')
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or(0);
        Self {
            cpu: field("/proc/cpuinfo", "model name", ':'),
            cores: cores(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
            system: field("/etc/os-release", "PRETTY_NAME", '='),
            memory_mib: memory_kib / 1024,
        }
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Whether this process, and so all it starts, runs before every usual process:
/// `chrt` gave it a real-time policy. proc_pid_stat(5), field 41.
pub fn is_realtime() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    realtime_policy(&stat)
}

fn realtime_policy(stat: &str) -> bool {
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    // After the name comes field 3; SCHED_FIFO is 1 and SCHED_RR is 2.
    matches!(after_name.split(' ').nth(41 - 3), Some("1" | "2"))
}

/// The proxy's core and the load's: the last and the first.
pub fn pinned_cores() -> Result<(usize, usize)> {
    ensure!(
        cores() >= 2,
        "two cores are needed: one for the proxy, one for the load"
    );
    Ok((cores() - 1, 0))
}

/// Raises the soft limit of open files to the hard one; returns it.
pub fn raise_file_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )
    .context("raising the limit of open files")?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The same, and above what the hard limit says where that is allowed (root): up to `wanted`.
pub fn raise_file_limit_to(wanted: u64) -> Result<u64> {
    let both = Rlimit {
        current: Some(wanted),
        maximum: Some(wanted),
    };
    let enough = getrlimit(Resource::Nofile)
        .maximum
        .is_none_or(|maximum| maximum >= wanted);
    if !enough && setrlimit(Resource::Nofile, both).is_ok() {
        return Ok(wanted);
    }
    raise_file_limit()
}

/// Makes the calling thread a precise one: pinned if asked, woken when it asked
/// to be (by default the kernel may round sleeps up by 50 µs), and as nice to
/// others as is said; less nice than usual (below 0) where that is allowed (root).
///
/// Under a real-time policy niceness means nothing, and of equals each has up to
/// 100 ms before the next: who is to be nice leaves it ([`leave_realtime`]).
pub fn settle_thread(core: Option<usize>, nice: i32) -> Result<()> {
    if let Some(core) = core {
        pin(core)?;
    }
    set_current_timer_slack(NonZeroU64::new(1))?;
    if nice > 0 && is_realtime() {
        return leave_realtime("--batch");
    }
    if nice != 0 {
        // Of the calling thread alone, as Linux has it.
        let settled = rustix::process::nice(nice).context("being nice");
        if nice > 0 {
            settled?;
        }
    }
    Ok(())
}

/// Has the calling process, and what it becomes and starts, run on this core. If
/// that is the proxy's, it may have all of it: the kernel stops a real-time one
/// that does for 50 ms each second (sched_rt_runtime_us), so it is none.
pub fn settle_process(core: usize) -> Result<()> {
    // Asked first: a process that is pinned sees one core.
    let is_proxys = pinned_cores().is_ok_and(|(proxy, _)| core == proxy);
    pin(core)?;
    match is_proxys && is_realtime() {
        true => leave_realtime("--other"),
        false => Ok(()),
    }
}

fn pin(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).with_context(|| format!("pinning to core {core}"))
}

/// What still is before whatever else the machine does, outside a real-time policy.
const BEFORE_OTHERS: i32 = -15;

/// Has the calling thread go behind those that `chrt` put before all others, and
/// before these.
fn leave_realtime(policy: &str) -> Result<()> {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let ended = Command::new("chrt")
        .args([policy, "--pid", "0", &thread])
        .status()
        .context("chrt")?;
    ensure!(ended.success(), "chrt: {ended}");
    rustix::process::nice(BEFORE_OTHERS).context("being less nice")?;
    Ok(())
}

/// Cargo's target folder: this program lies in `target/PROFILE/`.
pub fn target_folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program
        .ancestors()
        .nth(2)
        .context("the program must lie in target/PROFILE/")?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_the_41st_field() {
        let fields = |policy: &str| {
            let between = "0 ".repeat(37);
            format!("7 (a) b) R {between}{policy} 0 0")
        };
        assert!(realtime_policy(&fields("1")) && realtime_policy(&fields("2")));
        assert!(!realtime_policy(&fields("0")) && !realtime_policy(""));
    }
}
