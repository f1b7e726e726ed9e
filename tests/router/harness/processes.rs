//! Process trees, read from `/proc`: who runs under the supervisor, and
//! making sure that nobody outlives a test.

use std::collections::BTreeMap;

use rustix::process::{Pid, Signal, kill_process};

/// Sends a signal; a process already gone is fine.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether it exists and is not a zombie.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, state)| state != 'Z')
}

/// Every process below `root`, nearest first.
pub fn descendants(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = std::fs::read_dir("/proc").expect("/proc must be mounted");
    for pid in entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
    {
        if let Some((parent, _)) = stat(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            found.push(child);
            next.push(child);
        }
    }
    found
}

/// Ends a whole tree, its root first stopped so that it restarts nobody.
pub fn kill_tree(root: u32) {
    signal(root, Signal::STOP);
    let below = descendants(root);
    signal(root, Signal::KILL);
    for pid in below {
        signal(pid, Signal::KILL);
    }
}

/// Whether it ended and nobody has asked how.
pub fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|(_, state)| state == 'Z')
}

/// The file it runs; ` (deleted)` is appended if another took its place.
pub fn program(pid: u32) -> String {
    let link = std::fs::read_link(format!("/proc/{pid}/exe"));
    link.map_or_else(|_| String::new(), |path| path.display().to_string())
}

/// Whether it was started as this role.
pub fn is_role(pid: u32, role: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).nth(1) == Some(role.as_bytes())
}

/// A line of its `/proc/PID/status`.
pub fn status(pid: u32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// Parent and state of a process.
fn stat(pid: u32) -> Option<(u32, char)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = &stat[stat.rfind(')')? + 1..];
    let mut words = after_name.split_whitespace();
    let state = words.next()?.chars().next()?;
    Some((words.next()?.parse().ok()?, state))
}
