//! The thread that reads pieces and sends them, again where it must.

use std::io::BufRead;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::pieces::Pieces;
use super::{CommandError, Import, Note};
use crate::cli::operator::client::{Client, Port, Trouble};

/// How long one piece is tried while the router does not take it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first wait before a piece is sent again; each is twice as long as the
/// one before.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What it takes to send.
pub(super) struct Sender<'a> {
    pub client: &'a Client<'a>,
    pub args: &'a Import,
    pub name: &'a str,
    pub notes: SyncSender<Note>,
    /// What the router says the import came to so far.
    pub tally: String,
}

impl Sender<'_> {
    /// Sends all of it; the last note says how it ended.
    pub fn run(mut self, input: impl BufRead) {
        let done = self.send_all(input);
        self.tell(Note::Ended(done));
    }

    fn send_all(&mut self, input: impl BufRead) -> Result<(), CommandError> {
        let name = self.name;
        let unread = |error| CommandError::Failed(format!("{name}: {error}"));
        let mut pieces = Pieces::new(input);
        let from = self.args.from;
        if from > 1 {
            if !pieces.skip_to(from).map_err(unread)? {
                let text = format!("{name} ends before line {from}: nothing was done");
                return Err(CommandError::Failed(text));
            }
            self.tell(Note::Skipped(pieces.read()));
        }
        let mut sent = false;
        while let Some(piece) = pieces.next().map_err(unread)? {
            let report = self.send(false, &piece.bytes, sent)?;
            sent = true;
            self.tell(Note::Taken {
                report,
                first: piece.first,
                lines: piece.lines,
                read: piece.read,
            });
        }
        // No lines: only what there is is asked for, or waited for.
        if self.args.wait || !sent {
            let report = self.send(self.args.wait, b"", sent)?;
            self.tell(Note::Taken {
                report,
                first: pieces.line(),
                lines: 0,
                read: pieces.read(),
            });
        }
        Ok(())
    }

    /// Sends one piece until the router has answered for it. The first is not
    /// waited for where there is no router at all.
    fn send(&mut self, waits: bool, bytes: &[u8], was_there: bool) -> Result<Value, CommandError> {
        let path = self.path(waits);
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            let error = match self.client.post_lines(Port::Api, &path, bytes) {
                Ok(report) => {
                    report["tally"]
                        .as_str()
                        .unwrap_or_default()
                        .clone_into(&mut self.tally);
                    return Ok(report);
                }
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Absent(error)) if !was_there => return Err(error),
                Err(Trouble::Absent(error) | Trouble::Passing(error)) => error,
            };
            if begun.elapsed() >= PATIENCE {
                return Err(error);
            }
            if pause == PAUSE {
                let text = format!("{error}; trying again for up to {} s", PATIENCE.as_secs());
                self.tell(Note::Waiting(text));
            }
            thread::park_timeout(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn path(&self, waits: bool) -> String {
        let mut path = format!("/v1/import?tally={}", self.tally);
        if self.args.confirm_shrink {
            path.push_str("&confirm=shrink");
        }
        if waits {
            path.push_str("&wait=active&timeout=60s");
        }
        path
    }

    fn tell(&self, note: Note) {
        // Nobody listens any more only when the command is at its end.
        let _ = self.notes.send(note);
    }
}
