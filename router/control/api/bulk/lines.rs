//! An import's lines: read, parsed, handed to the writer in groups.
//!
//! Owns where a line ends, its number, and what is told of it. One group is
//! parsed while the one before it is being made durable; never holds more.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::StatusCode;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::super::ApiState;
use super::super::problem::Problem;
use super::super::request::{BODY_MAX_BYTES, parse};
use super::super::shapes::ImportLine;
use super::{Imported, LineError};
use crate::control::refusal::Refusal;
use crate::control::registry::Pending;
use crate::control::staging::{AppSpec, ImportTally, Outcome};

/// Lines of one commit.
const GROUP_LINES: usize = 5_000;
/// Bytes of one commit's lines.
const GROUP_BYTES: usize = 8 << 20;
/// Line errors listed; the others are counted.
const ERRORS_LISTED: usize = 100;
/// How long an import may pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A group on its way to the disk: the line numbers, and what comes of it.
type Group = (Vec<(u64, String)>, Pending<Done>);

/// What came of each line of a group, and of the import so far.
type Done = (Vec<Result<Outcome, Refusal>>, ImportTally);

/// An import being read: lines become groups, and groups commits.
pub(super) struct Import {
    state: ApiState,
    chunks: BodyDataStream,
    /// When something last arrived.
    heard_at: Instant,
    report: Imported,
    line: u64,
    buffer: Vec<u8>,
    /// The line in the buffer is too long; the rest of it is skipped.
    skipping: bool,
    specs: Vec<(u64, AppSpec)>,
    spec_bytes: usize,
    /// The group before, being made durable while this one is read.
    pending: Option<Group>,
    tally: ImportTally,
}

impl Import {
    /// Of a body, going on with what a tally says.
    pub(super) fn new(state: ApiState, body: Body, tally: ImportTally) -> Import {
        let report = Imported {
            revision: state.registry.revision(),
            ..Imported::default()
        };
        Import {
            state,
            chunks: body.into_data_stream(),
            heard_at: Instant::now(),
            report,
            line: 1,
            buffer: Vec::new(),
            skipping: false,
            specs: Vec::new(),
            spec_bytes: 0,
            pending: None,
            tally,
        }
    }

    /// What became of it so far.
    pub(super) fn report(&self) -> Imported {
        let mut report = self.report.clone();
        // A line that meets another app's host is found out after those behind
        // it that do not even parse.
        report.errors.sort_by_key(|error| error.line);
        report.tally = self.tally.told();
        report
    }

    /// Reads on until the end of the body (true) or, if told one, until a
    /// moment (false).
    ///
    /// # Errors
    /// Nothing can be stored, or read, any more; whole lines before that count.
    pub(super) async fn advance(&mut self, until: Option<Instant>) -> Result<bool, Problem> {
        let broken = loop {
            let give_up = self.heard_at + PAUSE_MAX;
            let moment = until.map_or(give_up, |until| until.min(give_up));
            match timeout_at(moment, self.chunks.next()).await {
                Ok(Some(Ok(chunk))) => {
                    self.take(&chunk).await?;
                    self.heard_at = Instant::now();
                    if until.is_some_and(|until| self.heard_at >= until) {
                        return Ok(false);
                    }
                }
                Ok(None) => break None,
                Ok(Some(Err(_))) => {
                    let detail = "the body broke off; whole lines before that count";
                    break Some(Problem::new(StatusCode::BAD_REQUEST, "broken_body", detail));
                }
                Err(_) if Instant::now() < give_up => return Ok(false),
                Err(_) => {
                    let detail = format!("nothing arrived for {} s", PAUSE_MAX.as_secs());
                    break Some(Problem::new(
                        StatusCode::REQUEST_TIMEOUT,
                        "request_timeout",
                        detail,
                    ));
                }
            }
        };
        if broken.is_none() && (!self.buffer.is_empty() || self.skipping) {
            self.end_line();
        }
        self.send_group().await?;
        self.settle_pending().await?;
        broken.map_or(Ok(true), Err)
    }

    async fn take(&mut self, chunk: &[u8]) -> Result<(), Problem> {
        let mut rest = chunk;
        while let Some(at) = memchr::memchr(b'\n', rest) {
            self.extend(&rest[..at]);
            self.end_line();
            rest = &rest[at + 1..];
            if self.specs.len() >= GROUP_LINES || self.spec_bytes >= GROUP_BYTES {
                self.send_group().await?;
            }
        }
        self.extend(rest);
        Ok(())
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.skipping || self.buffer.len() + bytes.len() > BODY_MAX_BYTES {
            self.skipping = true;
            self.buffer.clear();
        } else {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Takes the buffer as one line.
    fn end_line(&mut self) {
        let line = self.line;
        self.line += 1;
        if std::mem::take(&mut self.skipping) {
            self.report.lines += 1;
            let detail = format!("a line has at most {BODY_MAX_BYTES} bytes");
            return self.refuse(
                line,
                None,
                &Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "line_too_long", detail),
            );
        }
        let buffer = std::mem::take(&mut self.buffer);
        if !buffer.trim_ascii().is_empty() {
            self.report.lines += 1;
            match parse::<ImportLine>(&buffer) {
                Err(problem) => self.refuse(line, None, &problem),
                Ok(parsed) => {
                    let app = parsed.app.clone();
                    match parsed.spec() {
                        Ok(spec) => {
                            self.spec_bytes += buffer.len();
                            self.specs.push((line, spec));
                        }
                        Err(problem) => self.refuse(line, Some(app), &problem),
                    }
                }
            }
        }
        self.buffer = buffer;
        self.buffer.clear();
    }

    /// Hands the lines read to the writer once the group before is done with.
    async fn send_group(&mut self) -> Result<(), Problem> {
        self.settle_pending().await?;
        if self.specs.is_empty() {
            return Ok(());
        }
        self.spec_bytes = 0;
        let specs = std::mem::take(&mut self.specs);
        let names = specs
            .iter()
            .map(|(line, spec)| (*line, spec.name.clone()))
            .collect();
        let specs: Vec<AppSpec> = specs.into_iter().map(|(_, spec)| spec).collect();
        let mut tally = self.tally;
        let pending = self
            .state
            .registry
            .submit(move |staging| Ok((staging.import(&specs, &mut tally)?, tally)))
            .await?;
        self.pending = Some((names, pending));
        Ok(())
    }

    async fn settle_pending(&mut self) -> Result<(), Problem> {
        let Some((lines, pending)) = self.pending.take() else {
            return Ok(());
        };
        let (outcomes, tally) = pending.settled().await?;
        self.tally = tally;
        for ((line, app), outcome) in lines.into_iter().zip(outcomes) {
            match outcome {
                Ok(outcome) => {
                    self.report.revision = self.report.revision.max(outcome.revision);
                    let count = match outcome {
                        Outcome { created: true, .. } => &mut self.report.created,
                        Outcome { changed: true, .. } => &mut self.report.updated,
                        _ => &mut self.report.unchanged,
                    };
                    *count += 1;
                }
                Err(refusal) => self.refuse(line, Some(app), &refusal.into()),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, line: u64, app: Option<String>, problem: &Problem) {
        self.report.failed += 1;
        if self.report.errors.len() < ERRORS_LISTED {
            self.report.errors.push(LineError {
                line,
                app,
                code: problem.code(),
                detail: without_place(problem.detail()).to_owned(),
                field: problem.field_name().map(str::to_owned),
                column: problem.column(),
            });
        }
    }
}

/// What a parser says of a line, without the place it adds: it sees each line
/// as its first, and the error has the right number beside it.
fn without_place(detail: &str) -> &str {
    match detail.rsplit_once(" at line 1 column ") {
        Some((what, column)) if column.bytes().all(|byte| byte.is_ascii_digit()) => what,
        _ => detail,
    }
}
