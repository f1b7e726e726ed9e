//! `import`: apps by the million, in pieces that can be sent again.
//!
//! Owns the conversation with the person: progress, errors, where to go on.
//! A piece counts once the router has answered for it; until then it may be
//! sent again, since an import of the same lines changes nothing more. So the
//! command survives a restart of control, and can be interrupted at any
//! moment: it then says from which line to go on.

mod pieces;
mod progress;
mod sending;

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::progress::{Progress, grouped};
use self::sending::Sender;
use super::client::Client;
use super::text::{print, print_json, shown};
use super::{CommandError, FAILED, Import};

/// How often the line on a terminal is drawn anew.
const DRAW: Duration = Duration::from_millis(250);
/// How often a line is written where standard error is no terminal.
const WRITE: Duration = Duration::from_secs(5);
/// Bytes read from the input at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// Line errors told; the others are counted.
const ERRORS_TOLD: usize = 100;

/// What the sending thread and the signals have to tell.
#[derive(Debug)]
enum Note {
    /// Lines before `--from` were left out: so many bytes.
    Skipped(u64),
    /// The router has answered for a piece.
    Taken {
        /// Its report; lines are numbered from 1 in it.
        report: Value,
        /// The piece's first line.
        first: u64,
        /// Its lines.
        lines: u64,
        /// Bytes of the input up to its end.
        read: u64,
    },
    /// A piece has to be sent again.
    Waiting(String),
    /// The input is at its end, or nothing more can be done.
    Ended(Result<(), CommandError>),
    /// Somebody wants it to end.
    Interrupted,
}

/// `portico import FILE|-`: fails if a line does, after all others were taken.
pub(super) fn import(client: &Client<'_>, args: &Import) -> Result<(), CommandError> {
    let (name, input, total): (&str, Box<dyn BufRead + Send>, Option<u64>) = if args.file == "-" {
        let input = BufReader::with_capacity(BUFFER_BYTES, io::stdin());
        ("standard input", Box::new(input), None)
    } else {
        let wrong = |error| CommandError::Failed(format!("{}: {error}", args.file));
        let file = File::open(&args.file).map_err(wrong)?;
        let about = file.metadata().map_err(wrong)?;
        if about.is_dir() {
            return Err(CommandError::Failed(format!("{}: is a folder", args.file)));
        }
        let input = BufReader::with_capacity(BUFFER_BYTES, file);
        (
            &args.file,
            Box::new(input),
            about.is_file().then_some(about.len()),
        )
    };
    let (notes, told) = sync_channel(64);
    interruptible(notes.clone())?;
    let mut account = Account::new(name, args, total);
    let done = thread::scope(|scope| {
        let sender = Sender {
            client,
            args,
            name,
            notes,
            tally: String::new(),
        };
        scope.spawn(move || sender.run(input));
        account.follow(&told)
    });
    account.finish(client, done)
}

/// Ends the command at SIGINT and SIGTERM, in words.
fn interruptible(notes: SyncSender<Note>) -> Result<(), CommandError> {
    let failed = |error| CommandError::Failed(format!("signals: {error}"));
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(failed)?;
    let wait = move || {
        for _ in &mut signals {
            // The other end lives as long as the command.
            let _ = notes.send(Note::Interrupted);
        }
    };
    let thread = thread::Builder::new().name("signals".into()).spawn(wait);
    thread.map(drop).map_err(failed)
}

/// What was done so far, and how it is told.
struct Account<'a> {
    name: &'a str,
    args: &'a Import,
    /// The first line that is not accounted for.
    next: u64,
    sum: Sum,
    begun: Instant,
    progress: Progress,
    is_terminal: bool,
    told_at: Instant,
    errors_told: usize,
}

/// The reports of all pieces together.
#[derive(Debug, Default)]
struct Sum {
    revision: u64,
    lines: u64,
    created: u64,
    updated: u64,
    unchanged: u64,
    failed: u64,
    errors: Vec<Value>,
}

impl Sum {
    /// Adds a piece's report, whose lines follow `before` others.
    fn add(&mut self, report: &Value, before: u64) {
        let count = |key: &str| report[key].as_u64().unwrap_or(0);
        self.revision = self.revision.max(count("revision"));
        self.lines += count("lines");
        self.created += count("created");
        self.updated += count("updated");
        self.unchanged += count("unchanged");
        self.failed += count("failed");
        for error in report["errors"].as_array().into_iter().flatten() {
            if self.errors.len() == ERRORS_TOLD {
                return;
            }
            let mut error = error.clone();
            if let Some(line) = error["line"].as_u64() {
                error["line"] = json!(before + line);
            }
            self.errors.push(error);
        }
    }
}

impl<'a> Account<'a> {
    fn new(name: &'a str, args: &'a Import, total: Option<u64>) -> Account<'a> {
        let begun = Instant::now();
        Account {
            name,
            args,
            next: args.from,
            sum: Sum::default(),
            begun,
            progress: Progress::new(total, begun),
            is_terminal: io::stderr().is_terminal(),
            told_at: begun,
            errors_told: 0,
        }
    }

    /// Takes notes until the end.
    fn follow(&mut self, notes: &Receiver<Note>) -> Result<(), CommandError> {
        loop {
            match notes.recv_timeout(DRAW) {
                Ok(Note::Skipped(read)) => self.progress.begin_at(read, Instant::now()),
                Ok(Note::Taken {
                    report,
                    first,
                    lines,
                    read,
                }) => {
                    self.sum.add(&report, first - 1);
                    self.next = first + lines;
                    let done = self.next - self.args.from;
                    self.progress.reached(done, read, Instant::now());
                    self.tell_errors();
                }
                Ok(Note::Waiting(why)) => self.say(&why),
                Ok(Note::Ended(done)) => return done,
                Ok(Note::Interrupted) => {
                    self.say(&format!("portico: interrupted; {}", self.where_to_go_on()));
                    // The piece under way may be waited for as long as it likes.
                    std::process::exit(FAILED.into());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(CommandError::Failed("the sending thread ended".into()));
                }
            }
            self.tell_progress();
        }
    }

    fn where_to_go_on(&self) -> String {
        let done = match self.next - 1 {
            0 => "nothing is done for certain".to_owned(),
            last => format!("lines up to {last} are done"),
        };
        let more = if self.args.file == "-" {
            ", with the same lines on standard input"
        } else {
            ""
        };
        format!(
            "{done}; go on with: portico import {} --from {}{more}",
            shown(&self.args.file),
            self.next
        )
    }

    fn tell_progress(&mut self) {
        let every = if self.is_terminal { DRAW } else { WRITE };
        let now = Instant::now();
        if self.args.quiet || now.duration_since(self.told_at) < every {
            return;
        }
        self.told_at = now;
        let text = self.progress.text(self.sum.failed, now);
        if self.is_terminal {
            eprint!("\r\x1b[K{text}");
        } else {
            eprintln!("{text}");
        }
    }

    /// A line of its own, where the line of progress may stand.
    fn say(&self, text: &str) {
        self.clear();
        eprintln!("{text}");
    }

    fn clear(&self) {
        if self.is_terminal && !self.args.quiet {
            eprint!("\r\x1b[K");
        }
    }

    fn tell_errors(&mut self) {
        let untold = self.sum.errors.get(self.errors_told..).unwrap_or_default();
        if untold.is_empty() {
            return;
        }
        self.clear();
        for error in untold {
            eprintln!("{}", line_error(self.name, error));
        }
        self.errors_told = self.sum.errors.len();
    }

    /// The report, and whether all of it went well.
    fn finish(
        &self,
        client: &Client<'_>,
        done: Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        self.clear();
        let untold = self.sum.failed.saturating_sub(self.errors_told as u64);
        if untold > 0 {
            eprintln!("{}: and {untold} more", self.name);
        }
        if let Err(error) = done {
            let error = match error {
                CommandError::Failed(why) if self.next > self.args.from => {
                    CommandError::Failed(format!("{why}; {}", self.where_to_go_on()))
                }
                other => other,
            };
            return Err(error);
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        if client.json() {
            print_json(&self.document(seconds))?;
        } else {
            print(&self.summary(seconds))?;
        }
        if self.sum.failed > 0 {
            return Err(CommandError::Failed(format!(
                "{}: {} lines were not taken",
                self.name, self.sum.failed
            )));
        }
        Ok(())
    }

    fn document(&self, seconds: f64) -> Value {
        let sum = &self.sum;
        json!({
            "revision": sum.revision,
            "lines": sum.lines,
            "created": sum.created,
            "updated": sum.updated,
            "unchanged": sum.unchanged,
            "failed": sum.failed,
            "errors": sum.errors,
            "seconds": seconds,
            "lines_per_second": sum.lines as f64 / seconds.max(1e-3),
        })
    }

    fn summary(&self, seconds: f64) -> String {
        let sum = &self.sum;
        format!(
            "{} lines: {} created, {} updated, {} unchanged, {} failed (revision {}; {seconds:.1} s, {} lines/s)\n",
            sum.lines,
            sum.created,
            sum.updated,
            sum.unchanged,
            sum.failed,
            sum.revision,
            grouped((sum.lines as f64 / seconds.max(1e-3)) as u64),
        )
    }
}

/// `FILE:LINE[:COLUMN]: app NAME: what is wrong`
fn line_error(name: &str, error: &Value) -> String {
    let mut text = format!("{name}:{}", error["line"]);
    if let Some(column) = error["column"].as_u64() {
        text.push_str(&format!(":{column}"));
    }
    if let Some(app) = error["app"].as_str() {
        text.push_str(&format!(": app {}", shown(app)));
    }
    let detail = error["detail"]
        .as_str()
        .or_else(|| error["code"].as_str())
        .unwrap_or("refused");
    format!("{text}: {}", shown(detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_line() {
        let error = json!({"line": 7, "column": 3, "code": "bad_json", "detail": "expected `,`"});
        assert_eq!(
            line_error("apps.ndjson", &error),
            "apps.ndjson:7:3: expected `,`"
        );
        let error = json!({"line": 8, "app": "shop", "code": "host_taken"});
        assert_eq!(line_error("-", &error), "-:8: app shop: host_taken");
    }

    #[test]
    fn reports_of_pieces_add_up_under_the_inputs_own_line_numbers() {
        let mut sum = Sum::default();
        let report = |revision: u64, line: u64| {
            json!({"revision": revision, "lines": 10, "created": 9, "failed": 1,
                   "errors": [{"line": line, "code": "bad_json"}]})
        };
        sum.add(&report(7, 3), 0);
        sum.add(&report(8, 4), 10);
        assert_eq!(
            (sum.revision, sum.lines, sum.created, sum.failed),
            (8, 20, 18, 2)
        );
        let lines: Vec<_> = sum
            .errors
            .iter()
            .map(|error| error["line"].as_u64())
            .collect();
        assert_eq!(lines, [Some(3), Some(14)]);
        for _ in 0..2 * ERRORS_TOLD {
            sum.add(&report(9, 1), 20);
        }
        assert_eq!(sum.errors.len(), ERRORS_TOLD);
    }
}
