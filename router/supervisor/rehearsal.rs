//! A rehearsal: the new binary, started as a process of its own, shows that
//! it could take over. Owns that process and what it says; decides nothing.
//!
//! Two acts. First it is asked with the one argument [`QUESTION`], which a
//! Portico too old to be upgraded to in place refuses as a usage error, and
//! what is no Portico does not answer with [`ANSWER`]. Only then is it run
//! with this supervisor's own arguments and state: it sees that the state was
//! written by its parent, reads everything, says so and exits.
//!
//! **Invariant**: a rehearsal inherits no socket, so whatever it does, it
//! takes no connection and holds no port.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStderr, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, WaitStatus};

use super::last_words::LastWords;
use super::succession::{self, Memory};

/// The subcommand that asks.
pub const QUESTION: &str = "rehearse";
/// How the answer to both acts begins.
pub(super) const ANSWER: &str = "portico can succeed: ";

/// Bytes of standard output kept: the answer is one line.
const MAX_ANSWER_BYTES: usize = 4096;
/// Bytes read at once.
const READ_BYTES: usize = 4096;
/// Reads after the end: what is left in two pipes is at most this.
const LAST_READS: usize = 32;

/// A process that rehearses.
#[derive(Debug)]
pub(super) struct Rehearsal {
    pub pid: Pid,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    answer: Vec<u8>,
    words: LastWords,
}

impl Rehearsal {
    /// The first act.
    ///
    /// # Errors
    /// The file is missing, or nothing that can be run.
    pub(super) fn ask(binary: &Path) -> io::Result<Rehearsal> {
        let mut command = Command::new(binary);
        command.arg(QUESTION).env_remove(succession::VARIABLE);
        Rehearsal::start(command)
    }

    /// The second act: `arguments` begin with the program's name.
    ///
    /// # Errors
    /// As [`Rehearsal::ask`].
    pub(super) fn run(
        binary: &Path,
        arguments: &[OsString],
        memory: &Memory,
    ) -> io::Result<Rehearsal> {
        let mut command = Command::new(binary);
        if let Some((name, rest)) = arguments.split_first() {
            command.arg0(name).args(rest);
        }
        command.env(succession::VARIABLE, memory.number());
        let lent = memory.lend()?;
        let started = Rehearsal::start(command);
        drop(lent);
        started
    }

    fn start(mut command: Command) -> io::Result<Rehearsal> {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Of its own, so that what it may have started ends with it.
            .process_group(0)
            .spawn()?;
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        let pipes = [
            stdout.as_ref().map(AsFd::as_fd),
            stderr.as_ref().map(AsFd::as_fd),
        ];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        Ok(Rehearsal {
            pid: pid.expect("a started child must have a pid"),
            stdout,
            stderr,
            answer: Vec::new(),
            words: LastWords::default(),
        })
    }

    /// Where it may say something.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let stdout = self.stdout.as_ref().map(AsFd::as_fd);
        let stderr = self.stderr.as_ref().map(AsFd::as_fd);
        stdout.into_iter().chain(stderr)
    }

    /// Takes what it said, without waiting.
    pub(super) fn listen(&mut self) {
        let (answer, words) = (&mut self.answer, &mut self.words);
        hear(&mut self.stdout, |bytes| {
            let room = MAX_ANSWER_BYTES.saturating_sub(answer.len());
            answer.extend_from_slice(&bytes[..bytes.len().min(room)]);
        });
        hear(&mut self.stderr, |bytes| words.hear(bytes));
    }

    /// Ends it, and all it started. It is reaped like any other child.
    pub(super) fn stop(&self) {
        // It fails only for processes that are dead already.
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }

    /// It ended: whether it could take over, or why not.
    ///
    /// # Errors
    /// A sentence for the operator, with its last words.
    pub(super) fn judge(mut self, status: WaitStatus) -> Result<(), String> {
        self.stop();
        for _ in 0..LAST_READS {
            self.listen();
        }
        let ended = match (status.exit_status(), status.terminating_signal()) {
            (Some(0), _) if says_so(&self.answer) => return Ok(()),
            (Some(0), _) => "is no Portico that can be upgraded to: it said nothing of it".into(),
            (Some(code), _) => format!("failed its rehearsal: exited with {code}"),
            (None, Some(signal)) => format!("failed its rehearsal: ended by signal {signal}"),
            (None, None) => "failed its rehearsal".to_owned(),
        };
        let words = self.words.into_lines().join("; ");
        Err(match words.as_str() {
            "" => format!("the new binary {ended}"),
            words => format!("the new binary {ended}: {words}"),
        })
    }
}

fn says_so(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    text.lines().any(|line| line.starts_with(ANSWER))
}

/// Passes on what can be read now; a pipe that ended is dropped.
fn hear<P: Read>(pipe: &mut Option<P>, mut take: impl FnMut(&[u8])) {
    let mut buffer = [0; READ_BYTES];
    let Some(open) = pipe else {
        return;
    };
    match open.read(&mut buffer) {
        Ok(length @ 1..) => take(&buffer[..length]),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) => {}
        Ok(0) | Err(_) => *pipe = None,
    }
}

/// Why a file cannot even be started, for the operator.
pub(super) fn unstartable(binary: &Path, error: &io::Error) -> String {
    format!("cannot run {}: {error}", OsStr::new(binary).display())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    use rustix::process::WaitOptions;

    use super::*;

    /// The outcome of asking a script.
    fn asked(script: &str) -> Result<(), String> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("portico");
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut rehearsal =
            retried(|| Rehearsal::ask(&path)).map_err(|error| unstartable(&path, &error))?;
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            rehearsal.listen();
            let waited = rustix::process::waitpid(Some(rehearsal.pid), WaitOptions::NOHANG);
            if let Some((_, status)) = waited.unwrap() {
                return rehearsal.judge(status);
            }
            if Instant::now() > end {
                rehearsal.stop();
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Another test's child may hold the fresh file open for a moment.
    fn retried(mut start: impl FnMut() -> io::Result<Rehearsal>) -> io::Result<Rehearsal> {
        for _ in 0..1_000 {
            match start() {
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {
                    std::thread::yield_now();
                }
                started => return started,
            }
        }
        start()
    }

    #[test]
    fn only_a_portico_that_says_so_passes() {
        assert_eq!(
            asked("#!/bin/sh\necho 'portico can succeed: 9.9'\n"),
            Ok(())
        );
        let said = asked("#!/bin/sh\necho hello\n").unwrap_err();
        assert!(said.contains("is no Portico"), "{said}");
    }

    #[test]
    fn an_older_one_refuses_and_its_words_are_the_reason() {
        let script = "#!/bin/sh\necho \"error: unrecognized subcommand '$1'\" >&2\nexit 2\n";
        let said = asked(script).unwrap_err();
        assert!(said.contains("exited with 2"), "{said}");
        assert!(
            said.contains("unrecognized subcommand 'rehearse'"),
            "{said}"
        );
    }

    #[test]
    fn saying_so_and_failing_is_failing() {
        let said = asked("#!/bin/sh\necho 'portico can succeed: 9.9'\nkill -9 $$\n").unwrap_err();
        assert!(said.contains("ended by signal 9"), "{said}");
    }

    #[test]
    fn what_is_no_program_is_named() {
        let said = asked("").unwrap_err();
        assert!(
            said.contains("cannot run") && said.contains("portico"),
            "{said}"
        );
    }

    #[test]
    fn much_noise_stays_bounded() {
        let script =
            "#!/bin/sh\nyes noise | head -c 300000 >&2\nyes noise | head -c 300000\nexit 3\n";
        let said = asked(script).unwrap_err();
        assert!(said.contains("exited with 3: noise; noise"), "{said}");
        assert!(said.len() < 8_000, "{}", said.len());
    }
}
