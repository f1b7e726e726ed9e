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
}

impl Sender<'_> {
    /// Sends all of it; the last note says how it ended.
    pub fn run(self, input: impl BufRead) {
        let done = self.send_all(input);
        self.tell(Note::Ended(done));
    }

    fn send_all(&self, input: impl BufRead) -> Result<(), CommandError> {
        let unread = |error| CommandError::Failed(format!("{}: {error}", self.name));
        let mut pieces = Pieces::new(input);
        let from = self.args.from;
        if from > 1 {
            if !pieces.skip_to(from).map_err(unread)? {
                let text = format!("{} ends before line {from}", self.name);
                return Err(CommandError::Failed(text));
            }
            self.tell(Note::Skipped(pieces.read()));
        }
        let mut sent = false;
        while let Some(piece) = pieces.next().map_err(unread)? {
            let report = self.send("/v1/import", &piece.bytes, sent)?;
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
            let path = match self.args.wait {
                true => "/v1/import?wait=active&timeout=60s",
                false => "/v1/import",
            };
            let report = self.send(path, b"", sent)?;
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
    fn send(&self, path: &str, bytes: &[u8], was_there: bool) -> Result<Value, CommandError> {
        let begun = Instant::now();
        let mut pause = PAUSE;
        loop {
            let error = match self.client.post_lines(Port::Api, path, bytes) {
                Ok(report) => return Ok(report),
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

    fn tell(&self, note: Note) {
        // Nobody listens any more only when the command is at its end.
        let _ = self.notes.send(note);
    }
}
