//! Users and what is theirs: whose a process or a file is, and what somebody
//! of another user can do with it. Changes nobody's rights but those of files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Somebody who is nobody of the router's.
pub const STRANGER: u32 = 61_179;

/// Whether these tests may give things away, and so may the router.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A line of `/proc/<pid>/status`, as words.
pub fn status(pid: u32, key: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let words = line.and_then(|rest| rest.strip_prefix(':'));
    let words = words.unwrap_or_default().split_whitespace();
    words.map(str::to_owned).collect()
}

/// The one id behind real, effective, saved and file-system id.
fn id(pid: u32, key: &str) -> u32 {
    let ids: BTreeSet<String> = status(pid, key).into_iter().collect();
    assert_eq!(ids.len(), 1, "{key} of {pid}: {ids:?}");
    let id = ids.first().and_then(|id| id.parse().ok());
    id.expect("an id must be a number")
}

/// Whose process it is: user and group.
pub fn user(pid: u32) -> (u32, u32) {
    (id(pid, "Uid"), id(pid, "Gid"))
}

/// Owner, group and mode.
pub fn owned(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (found.uid(), found.gid(), found.mode() & 0o777)
}

/// Whether a shell of this user, in this folder, succeeds.
pub fn can((uid, gid): (u32, u32), folder: &Path, shell: &str) -> bool {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", shell]).current_dir(folder);
    let output = command.uid(uid).gid(gid).output();
    output.expect("a shell must start").status.success()
}

/// Sets the mode of what is ours.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}
