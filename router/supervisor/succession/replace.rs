//! `execve`: the last act of a supervisor. Owns what the new program is
//! started with; knows nothing of what passes to it.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Memory, VARIABLE};

/// Becomes `binary`, with `arguments` (the program's name first), this
/// process's environment, and `memory` named in it. The caller has made sure
/// that what is to be inherited is, `memory` included, and holds the signals:
/// unlike std's `exec`, this leaves the mask as it is.
///
/// # Errors
/// Comes back only if nothing happened.
pub(in crate::supervisor) fn replace(
    binary: &Path,
    arguments: &[OsString],
    memory: &Memory,
) -> io::Result<Infallible> {
    let path = c_string(binary.as_os_str().as_bytes())?;
    let arguments: Vec<CString> = arguments
        .iter()
        .map(|argument| c_string(argument.as_bytes()))
        .collect::<Result<_, _>>()?;
    let kept = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
    let mut environment = Vec::new();
    for (name, value) in kept.chain([(VARIABLE.into(), memory.number().into())]) {
        let both = [name.as_bytes(), b"=", value.as_bytes()].concat();
        environment.push(c_string(&both)?);
    }
    Ok(nix::unistd::execve(&path, &arguments, &environment)?)
}

fn c_string(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_run_leaves_the_caller_as_it_was() {
        let memory = Memory::of(b"{}").unwrap();
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("missing");
        let refused = replace(&missing, &["portico".into()], &memory).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        let refused = replace(temp.path(), &[], &memory).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let refused = replace(Path::new("a\0b"), &[], &memory).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    }
}
