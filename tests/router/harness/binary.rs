//! The program under test as a file that is replaced: copies, scripts in its
//! place, and what became of an upgrade.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::router::PORTICO;
use super::{Router, within};

/// How long an upgrade may take on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Puts a fresh copy of the program in place, as an installation would: under
/// another name first, then renamed.
pub fn replace(program: &Path) {
    put(Path::new(PORTICO), 0o755, program);
}

/// Puts this in place of the program.
pub fn replace_by(program: &Path, mode: u32, content: impl AsRef<[u8]>) {
    let draft = program.with_extension("draft");
    fs::write(&draft, content).expect("the folder must be writable");
    put(&draft, mode, program);
}

/// A script in place of the program: `before` runs first, then a copy of the
/// real one with the same arguments, in the same process.
pub fn wrap(program: &Path, before: &str) {
    let real = real(program);
    let text = format!("#!/bin/sh\n{before}\nexec '{}' \"$@\"\n", real.display());
    put(Path::new(PORTICO), 0o755, &real);
    replace_by(program, 0o755, text);
}

/// What a [`wrap`]ped program runs in the end.
pub fn real(program: &Path) -> PathBuf {
    program.with_extension("real")
}

/// Copies by another process: were a file written here, a child that another
/// test starts at that moment would hold it open for writing, and the system
/// runs no such file.
pub fn put(source: &Path, mode: u32, target: &Path) {
    let fresh = target.with_extension("fresh");
    let copied = Command::new("cp").arg(source).arg(&fresh).status();
    assert!(copied.is_ok_and(|status| status.success()), "cp must work");
    let permissions = fs::Permissions::from_mode(mode);
    fs::set_permissions(&fresh, permissions).expect("the file must be ours");
    fs::rename(&fresh, target).expect("the folder must be writable");
}

/// What the supervisor says of its last upgrade, if it was asked and answers.
pub fn status(router: &Router) -> Option<Value> {
    let table = router.shown("/processes")?;
    let rows = table["processes"].as_array()?.iter();
    let mut supervisors = rows.filter(|row| row["role"] == "supervisor");
    Some(supervisors.next()?["upgrade"].clone())
}

/// Waits for the end of the attempt of this number; gives its `stage` and
/// `text`.
#[track_caller]
pub fn ended(router: &Router, attempt: u64) -> (String, String) {
    within(LIMIT, &format!("upgrade {attempt} ends"), || {
        let status = status(router)?;
        let text = |key: &str| status[key].as_str().map(str::to_owned);
        let is_over = status["attempt"] == attempt && status["stage"] != "running";
        is_over.then(|| Some((text("stage")?, text("text")?)))?
    })
}

/// Fails unless the attempt of this number succeeds.
#[track_caller]
pub fn succeeded(router: &Router, attempt: u64) {
    let (stage, text) = ended(router, attempt);
    assert_eq!(stage, "done", "{text}");
}
