//! Where this program was started from, and so where its next version will
//! be. Looks at files; never runs one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The path and arguments an upgrade starts the new binary with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The binary, as it was found when the router was first started: links
    /// in it are followed anew at each upgrade.
    pub(super) binary: PathBuf,
    /// Every argument, the program's name first.
    pub(super) arguments: Vec<OsString>,
}

impl Origin {
    /// Of this process: the path it was started by if that still leads to the
    /// running file, else the path of the running file.
    ///
    /// # Errors
    /// Neither `/proc` nor the system knows the running file.
    pub fn this() -> io::Result<Origin> {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        let running = std::env::current_exe()?;
        let named = arguments.first().and_then(|name| {
            let folder = std::env::current_dir().ok()?;
            let path = std::env::var_os("PATH").unwrap_or_default();
            let same =
                Identity::of(Path::new("/proc/self/exe")).or_else(|_| Identity::of(&running));
            let same = same.ok()?;
            candidates(name, &folder, &path)
                .find(|found| Identity::of(found).is_ok_and(|it| it == same))
        });
        Ok(Origin {
            binary: named.unwrap_or(running),
            arguments,
        })
    }

    /// The same, in a process that its predecessor has replaced: the path
    /// stays the one that the first of them was started by.
    pub(super) fn inherited(binary: &OsStr) -> Origin {
        Origin {
            binary: binary.into(),
            arguments: std::env::args_os().collect(),
        }
    }
}

/// Where a shell would have found `name`, absolute, in its order.
fn candidates(name: &OsStr, folder: &Path, path: &OsStr) -> impl Iterator<Item = PathBuf> {
    let direct = Path::new(name).components().count() > 1;
    let folders: Vec<PathBuf> = if direct {
        vec![folder.to_owned()]
    } else {
        // An empty entry means the working directory.
        std::env::split_paths(path)
            .map(|entry| folder.join(entry))
            .collect()
    };
    let name = PathBuf::from(name);
    folders.into_iter().map(move |folder| folder.join(&name))
}

/// Which file a path leads to, and which version of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(path: &Path) -> io::Result<Identity> {
        let file = std::fs::metadata(path)?;
        Ok(Identity {
            device: file.dev(),
            inode: file.ino(),
            size_bytes: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, path: &str) -> Vec<String> {
        candidates(OsStr::new(name), Path::new("/home/a"), OsStr::new(path))
            .map(|path| path.display().to_string())
            .collect()
    }

    #[test]
    fn a_name_is_looked_up_as_a_shell_does() {
        let path = "/usr/bin:tools:";
        assert_eq!(
            found("portico", path),
            [
                "/usr/bin/portico",
                "/home/a/tools/portico",
                "/home/a/portico"
            ]
        );
        assert_eq!(found("./portico", path), ["/home/a/./portico"]);
        assert_eq!(found("bin/portico", path), ["/home/a/bin/portico"]);
        assert_eq!(found("/opt/portico", path), ["/opt/portico"]);
    }

    #[test]
    fn this_process_was_started_from_its_own_file() {
        let origin = Origin::this().unwrap();
        assert!(origin.binary.is_absolute());
        assert_eq!(
            Identity::of(&origin.binary).unwrap(),
            Identity::of(Path::new("/proc/self/exe")).unwrap()
        );
        assert_eq!(origin.arguments[0], std::env::args_os().next().unwrap());
    }

    #[test]
    fn a_replaced_file_is_another_and_a_link_is_followed() {
        let temp = tempfile::tempdir().unwrap();
        let (one, two, link) = (
            temp.path().join("one"),
            temp.path().join("two"),
            temp.path().join("link"),
        );
        std::fs::write(&one, "1").unwrap();
        std::fs::write(&two, "2").unwrap();
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let before = Identity::of(&link).unwrap();
        assert_eq!(before, Identity::of(&one).unwrap());
        std::fs::rename(&two, &one).unwrap();
        assert_ne!(before, Identity::of(&link).unwrap());
        assert!(Identity::of(&two).is_err());
    }
}
