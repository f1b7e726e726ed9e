//! One child process: its start, its lifeline, its standard error. Decides
//! nothing: [`super::post`] does.

mod state;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, WaitStatus};
use serde::{Deserialize, Serialize};

use super::last_words::LastWords;
use super::post::{Departure, Ending};
use super::rights::Identity;
use super::succession;
use crate::heritage::{self, Bequest, Obituary, Role, Tether, Will};
use crate::settings::Settings;
pub(super) use state::ChildState;

/// Standard error copied at once, in bytes: a pipe that polls writable takes
/// this much without blocking (PIPE_BUF).
const COPY_BYTES: usize = 4096;
/// Standard error read after a death, in bytes.
const MAX_LAST_BYTES: usize = 64 << 10;
/// An operator's token in the supervisor's environment: no business of a child's.
const TOKEN_VARIABLE: &str = "PORTICO_TOKEN";

/// What is executed as a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// The binary.
    pub path: PathBuf,
    /// Its arguments before the role's name.
    pub args: Vec<OsString>,
}

impl Program {
    /// The binary that runs now, even if the file was replaced since.
    ///
    /// # Errors
    /// Neither `/proc` nor the system knows the path.
    pub fn this() -> io::Result<Program> {
        let own = PathBuf::from("/proc/self/exe");
        let path = if own.exists() {
            own
        } else {
            std::env::current_exe()?
        };
        Ok(Program {
            path,
            args: Vec::new(),
        })
    }

    /// The binary at this path, whatever is there when it is started.
    pub(super) fn at(path: &Path) -> Program {
        Program {
            path: path.to_owned(),
            args: Vec::new(),
        }
    }

    /// A command that runs the binary as `whom`, without the arguments; keep
    /// the descriptor until it is spawned.
    ///
    /// The binary is run by descriptor, so the folders above it may be closed
    /// to that user. Its groups are given up with its id: the standard library
    /// clears them where it sets a user.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn command(&self, whom: Option<Identity>) -> io::Result<(Command, OwnedFd)> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let open = rustix::fs::open(&self.path, flags, Mode::empty())?;
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
        // Without /proc, its path has to do; and a script's interpreter would
        // not find it by a descriptor that is closed by then.
        let path = if by_descriptor.exists() && !is_script(&self.path) {
            by_descriptor
        } else {
            self.path.clone()
        };
        let mut command = Command::new(path);
        command.arg0("portico");
        if let Some(Identity { uid, gid }) = whom {
            command.uid(uid).gid(gid);
        }
        Ok((command, open))
    }

    /// The binary as a person knows it.
    pub(super) fn shown(&self) -> String {
        let path = std::fs::read_link(&self.path).unwrap_or_else(|_| self.path.clone());
        path.display().to_string()
    }
}

fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == *b"#!"
}

/// All that a child is given beside its settings.
pub(super) struct Inheritance<'a> {
    pub bequest: Bequest,
    /// What the bequest names.
    pub descriptors: Vec<BorrowedFd<'a>>,
    /// The state folder: the child works inside it.
    pub state_dir: BorrowedFd<'a>,
    /// Whom it runs as, if not as the supervisor.
    pub identity: Option<Identity>,
}

/// A started child.
#[derive(Debug)]
pub(super) struct Child {
    pub role: Role,
    pub generation: u64,
    pub pid: Pid,
    pub tether: Tether,
    pub stderr: Option<ChildStderr>,
    pub started_at_ms: u64,
    /// It closed its lifeline: nothing to wait for there any more.
    pub deaf: bool,
    words: LastWords,
}

impl Child {
    /// Starts a child.
    ///
    /// It gets a process group of its own: a terminal's Ctrl-C is for the
    /// supervisor, which then drains.
    pub(super) fn start(
        program: &Program,
        (role, generation): (Role, u64),
        settings: &Settings,
        inheritance: Inheritance<'_>,
    ) -> io::Result<Child> {
        let (tether, lifeline) = heritage::pair()?;
        let (line, folder) = (lifeline.as_fd(), inheritance.state_dir);
        let numbers = (line.as_raw_fd(), folder.as_raw_fd());
        let will = Will::new(settings.clone(), numbers, inheritance.bequest);
        let (mut command, _open) = program.command(inheritance.identity)?;
        command
            .args(&program.args)
            .arg(role.name())
            .env(heritage::VARIABLE, will.to_json())
            .env_remove(TOKEN_VARIABLE)
            .env_remove(succession::VARIABLE)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        let lent = Lent::until_dropped(inheritance.descriptors.into_iter().chain([line, folder]))?;
        let mut process = command.spawn()?;
        drop(lent);
        let stderr = process.stderr.take();
        if let Some(stderr) = &stderr {
            rustix::io::ioctl_fionbio(stderr, true)?;
        }
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        Ok(Child {
            role,
            generation,
            pid: pid.expect("a started child must have a pid"),
            tether,
            stderr,
            started_at_ms: unix_ms(),
            deaf: false,
            words: LastWords::default(),
        })
    }

    /// The pid as the process table has it.
    pub(super) fn pid_number(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends it at once. It is reaped later, like any other dead child.
    pub(super) fn kill(&self) {
        // It fails only for a process that is dead already.
        let _ = rustix::process::kill_process(self.pid, Signal::KILL);
    }

    /// Copies what is waiting on its standard error to ours, and remembers
    /// it. Waits for neither.
    pub(super) fn relay_stderr(&mut self) {
        let mut buffer = [0; COPY_BYTES];
        let Some(stderr) = &mut self.stderr else {
            return;
        };
        match stderr.read(&mut buffer) {
            Ok(0) => self.stderr = None,
            Ok(length) => {
                self.words.hear(&buffer[..length]);
                super::voice::copy(&buffer[..length]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.stderr = None,
        }
    }

    /// What is to be remembered of it.
    pub(super) fn bury(mut self, status: WaitStatus, departure: &Departure) -> Obituary {
        let pid = self.pid_number();
        for _ in 0..MAX_LAST_BYTES / COPY_BYTES {
            self.relay_stderr();
        }
        Obituary {
            pid,
            at_ms: unix_ms(),
            lived_ms: u64::try_from(departure.lived.as_millis()).unwrap_or(u64::MAX),
            exit_code: status.exit_status(),
            signal: status.terminating_signal(),
            reason: departure.reason.clone(),
            last_words: self.words.into_lines(),
        }
    }
}

/// How the system says a process ended.
pub(super) fn ending(status: WaitStatus) -> Ending {
    let crash = [
        Signal::SEGV,
        Signal::ABORT,
        Signal::BUS,
        Signal::ILL,
        Signal::FPE,
        Signal::TRAP,
        Signal::SYS,
    ];
    let is_crash = |signal| crash.iter().any(|crash| crash.as_raw() == signal);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ending {
            reason: format!("exited with {code}"),
            is_own_fault: code != 0,
        },
        (None, Some(signal)) => Ending {
            reason: format!("ended by signal {signal}"),
            is_own_fault: is_crash(signal),
        },
        (None, None) => Ending {
            reason: "ended".to_owned(),
            is_own_fault: false,
        },
    }
}

/// Descriptors that a child may inherit until this is dropped. The
/// supervisor has one thread, so no other child is started meanwhile.
pub(super) struct Lent<'a> {
    descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Lent<'a> {
    pub(super) fn until_dropped(
        descriptors: impl Iterator<Item = BorrowedFd<'a>>,
    ) -> io::Result<Lent<'a>> {
        let mut lent = Lent {
            descriptors: Vec::new(),
        };
        for descriptor in descriptors {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
            lent.descriptors.push(descriptor);
        }
        Ok(lent)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        for descriptor in &self.descriptors {
            // They are open, so this cannot fail.
            let _ = rustix::io::fcntl_setfd(descriptor, FdFlags::CLOEXEC);
        }
    }
}

/// Unix milliseconds now.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
