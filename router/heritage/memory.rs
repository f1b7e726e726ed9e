//! How much memory there is: what the machine has, and has left, what the
//! container may take, what a process holds. Reads `/proc` and `/sys/fs/cgroup`;
//! decides nothing.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// Bytes that could be taken without anything being reclaimed that is needed:
/// the least of what the machine and each control group above us leave.
/// `None`: the system does not say.
pub fn available_bytes() -> Option<u64> {
    let machine = machine_bytes("MemAvailable:")?;
    let left = our_groups()
        .into_iter()
        .filter_map(|folder| left_in(&folder));
    Some(left.min().unwrap_or(u64::MAX).min(machine))
}

/// Bytes that a process may have: the machine's memory, or the least that a
/// control group above us allows. `None`: the system does not say.
pub fn total_bytes() -> Option<u64> {
    let machine = machine_bytes("MemTotal:")?;
    Some(least_limit(&our_groups()).unwrap_or(u64::MAX).min(machine))
}

fn machine_bytes(name: &str) -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, name)
}

fn our_groups() -> Vec<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    group_folders(&groups, Path::new("/sys/fs/cgroup"))
}

/// Bytes of memory a process holds. `None`: there is no such process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    kibibytes(&status, "VmRSS:")
}

/// The value of a line such as `MemAvailable:  1024 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(number.saturating_mul(1024))
}

/// Where the limits of our control groups may stand, ours and those above it.
fn group_folders(groups: &str, root: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let base = match controllers {
            "" => root.to_owned(),
            names if names.split(',').any(|name| name == "memory") => root.join("memory"),
            _ => continue,
        };
        let parts = Path::new(path)
            .components()
            .filter(|part| matches!(part, Component::Normal(_)));
        let own: PathBuf = base.components().chain(parts).collect();
        let above = own
            .ancestors()
            .take_while(|folder| folder.starts_with(&base));
        folders.extend(above.map(Path::to_owned));
    }
    folders
}

/// A control group's file that has a number, and nothing like `max`.
fn number_in(folder: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    text.trim().parse().ok()
}

/// The least of these control groups' limits; `None` if none sets one.
fn least_limit(folders: &[PathBuf]) -> Option<u64> {
    let limit = |folder: &PathBuf| {
        number_in(folder, "memory.max").or_else(|| number_in(folder, "memory.limit_in_bytes"))
    };
    folders.iter().filter_map(limit).min()
}

/// What a control group leaves; `None` if it sets no limit. File pages that
/// nobody used lately count as free: they go first.
fn left_in(folder: &Path) -> Option<u64> {
    let number = |name: &str| number_in(folder, name);
    let (limit, used, idle) = match number("memory.max") {
        Some(limit) => (limit, number("memory.current")?, "inactive_file"),
        None => (
            number("memory.limit_in_bytes")?,
            number("memory.usage_in_bytes")?,
            "total_inactive_file",
        ),
    };
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let reclaimable = stat.lines().find_map(|line| {
        let (name, value) = line.split_once(' ')?;
        (name == idle).then(|| value.trim().parse::<u64>().ok())?
    });
    let used = used.saturating_sub(reclaimable.unwrap_or_default());
    Some(limit.saturating_sub(used))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_says() {
        assert!(available_bytes().unwrap() > 1 << 20);
        assert!(total_bytes().unwrap() > 1 << 20);
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(resident_bytes(u32::MAX), None);
    }

    #[test]
    fn every_group_above_counts_in_both_versions() {
        let root = Path::new("/g");
        let paths = |groups: &str| -> Vec<String> {
            let folders = group_folders(groups, root);
            folders
                .iter()
                .map(|folder| folder.display().to_string())
                .collect()
        };
        assert_eq!(paths("0::/a/b\n"), ["/g/a/b", "/g/a", "/g"]);
        assert_eq!(paths("0::/\n"), ["/g"]);
        assert_eq!(
            paths("4:cpu,cpuacct:/x\n3:memory:/box\n"),
            ["/g/memory/box", "/g/memory"]
        );
        assert!(paths("nonsense").is_empty());
    }

    #[test]
    fn the_least_limit_of_all_groups_above_counts() {
        let temp = tempfile::tempdir().unwrap();
        let (unit, slice) = (temp.path().join("a/b"), temp.path().join("a"));
        fs::create_dir_all(&unit).unwrap();
        let folders = group_folders("0::/a/b\n", temp.path());
        assert_eq!(least_limit(&folders), None);
        fs::write(unit.join("memory.max"), "max\n").unwrap();
        fs::write(slice.join("memory.max"), "2000\n").unwrap();
        assert_eq!(least_limit(&folders), Some(2_000));
        fs::write(unit.join("memory.max"), "1000\n").unwrap();
        assert_eq!(least_limit(&folders), Some(1_000));
        fs::write(temp.path().join("memory.limit_in_bytes"), "500\n").unwrap();
        assert_eq!(least_limit(&folders), Some(500), "the first version's");
    }

    #[test]
    fn what_a_group_leaves_counts_idle_file_pages_as_free() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(temp.path().join(name), text).unwrap();
        assert_eq!(left_in(temp.path()), None);
        write("memory.current", "700\n");
        write("memory.stat", "anon 500\ninactive_file 100\n");
        write("memory.max", "max\n");
        assert_eq!(left_in(temp.path()), None, "no limit");
        write("memory.max", "1000\n");
        assert_eq!(left_in(temp.path()), Some(400));
        write("memory.max", "100\n");
        assert_eq!(left_in(temp.path()), Some(0));
    }

    #[test]
    fn the_first_version_has_other_names() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(temp.path().join(name), text).unwrap();
        write("memory.limit_in_bytes", "1000\n");
        write("memory.usage_in_bytes", "700\n");
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 50\n");
        assert_eq!(left_in(temp.path()), Some(350));
    }
}
