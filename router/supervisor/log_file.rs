//! The access log's file, opened here for the edges to write to: the
//! supervisor may where they may not. Never writes a line.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::heritage::Parcel;
use crate::settings::{AccessLog, Log};

/// What a log is made with: it holds what clients asked for.
const MODE: u32 = 0o640;
/// Others may write in a folder, or its group may.
const SHARED: u32 = 0o022;
/// In a folder with this bit, nobody replaces what is another's.
const STICKY: u32 = 0o1000;

/// A log that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("log.access = \"file:{}\": {source}", path.display())]
pub struct LogError {
    /// The file.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

/// Opens the file to append to, making it if need be; `None` if the log is
/// none.
///
/// # Errors
/// It cannot be opened, or is not what it seems.
pub(super) fn open(settings: &Log) -> Result<Option<Parcel>, LogError> {
    let AccessLog::File(path) = &settings.access else {
        return Ok(None);
    };
    let failed = |source| LogError {
        path: path.clone(),
        source,
    };
    // For a pipe that nobody reads from, this is an error rather than a wait.
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let wary = is_foreign(path);
    if wary {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::options()
        .create(true)
        .append(true)
        .mode(MODE)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or(0))
        .open(path)
        .map_err(failed)?;
    let is_alias = |found: Metadata| found.is_file() && found.nlink() > 1;
    if wary && is_alias(file.metadata().map_err(failed)?) {
        return Err(failed(io::Error::other(
            "it has a second name, in a folder that others can write to",
        )));
    }
    Ok(Some(Parcel::from(file)))
}

/// Whether others than root could have laid a link where root will write.
fn is_foreign(path: &Path) -> bool {
    if !rustix::process::geteuid().is_root() {
        return false;
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // A folder that is not there has nothing in it.
    std::fs::metadata(folder).is_ok_and(|folder| {
        let is_shared = folder.mode() & SHARED != 0 && folder.mode() & STICKY == 0;
        folder.uid() != 0 || is_shared
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use super::*;
    use crate::settings::LogFormat;

    fn log(path: &Path) -> Log {
        Log {
            access: AccessLog::File(path.to_owned()),
            format: LogFormat::Logfmt,
        }
    }

    #[test]
    fn a_file_is_made_for_few_and_appended_to() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("access.log");
        for line in ["one\n", "two\n"] {
            let file: Arc<File> = open(&log(&path)).unwrap().unwrap().into();
            (&*file).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777 & !MODE, 0, "{mode:o}");
    }

    #[test]
    fn what_is_no_file_is_not_opened() {
        let stdout = Log {
            access: AccessLog::Stdout,
            format: LogFormat::Json,
        };
        assert!(open(&stdout).unwrap().is_none());
    }

    #[test]
    fn a_log_that_cannot_be_had_is_named_by_its_setting() {
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("no/such/folder.log");
        for path in [missing.as_path(), temp.path()] {
            let error = open(&log(path)).unwrap_err().to_string();
            let named = format!("log.access = \"file:{}\"", path.display());
            assert!(error.starts_with(&named), "{error}");
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_refused_and_not_waited_for() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("pipe");
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
        assert!(open(&log(&path)).is_err());
    }

    #[test]
    fn root_follows_links_in_folders_of_its_own_alone() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root is worth deceiving.
        }
        let temp = tempfile::tempdir().unwrap();
        let (target, link) = (temp.path().join("target"), temp.path().join("link"));
        std::fs::write(&target, "").unwrap();
        symlink(&target, &link).unwrap();
        assert!(open(&log(&link)).is_ok());
        std::os::unix::fs::chown(temp.path(), Some(61_178), None).unwrap();
        assert!(open(&log(&link)).is_err());
        assert!(open(&log(&target)).is_ok());
        std::fs::hard_link(&target, temp.path().join("alias")).unwrap();
        assert!(open(&log(&target)).is_err());
    }
}
