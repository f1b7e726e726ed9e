//! `/v1/import` and `/v1/export`: every app, a line each.
//!
//! Both stream: an import holds one group of lines, an export one page of
//! apps, whatever the number of apps.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::answer::active;
use super::problem::{Problem, ProblemBody};
use super::request::{BODY_MAX_BYTES, Permitted, Query, Wait, must_be, parse};
use super::shapes::{ExportLine, ImportLine};
use crate::control::refusal::Refusal;
use crate::control::registry::Pending;
use crate::control::staging::{AppSpec, Outcome};
use crate::control::tokens::Caller;

/// Lines of one commit.
const GROUP_LINES: usize = 5_000;
/// Bytes of one commit's lines.
const GROUP_BYTES: usize = 8 << 20;
/// Line errors listed; the others are counted.
const ERRORS_LISTED: usize = 100;
/// How long an import may pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Apps of an export's page.
const EXPORT_PAGE: usize = 500;

/// What became of an import.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Imported {
    /// The revision of its last change.
    pub revision: u64,
    /// Lines read, empty ones left out.
    pub lines: u64,
    /// Apps that were not there.
    pub created: u64,
    /// Apps that are different now.
    pub updated: u64,
    /// Apps that were so already.
    pub unchanged: u64,
    /// Lines refused.
    pub failed: u64,
    /// The first of the refused lines.
    pub errors: Vec<LineError>,
}

/// A line that was refused.
#[derive(Debug, Serialize, ToSchema)]
pub struct LineError {
    /// Counted from 1.
    pub line: u64,
    /// The app, where it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// As of a problem.
    pub code: &'static str,
    /// One sentence.
    pub detail: String,
    /// The field, if one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Where in the line, if known; counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u64>,
}

/// Puts many apps, a JSON object a line. A line that is wrong is reported and
/// the others still count. Stops, with what was done so far, only when nothing
/// can be stored or read any more.
#[utoipa::path(post, path = "/v1/import", tag = "bulk", params(Wait),
    request_body(content = ImportLine, content_type = "application/x-ndjson"),
    responses((status = 200, body = Imported), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 408, body = ProblemBody), (status = 415, body = ProblemBody), (status = 504, body = ProblemBody),
        (status = 507, body = ProblemBody)))]
pub async fn import(
    State(state): State<ApiState>,
    caller: Caller,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<axum::Json<Imported>, Problem> {
    caller.must_operate()?;
    let patience = wait.patience()?;
    must_be(request.headers(), "application/x-ndjson")?;
    let mut import = Import::new(state.clone());
    let done = import.read(request.into_body()).await;
    let mut report = import.report;
    // A line that meets another app's host is found out after those behind it
    // that do not even parse.
    report.errors.sort_by_key(|error| error.line);
    let done = match (done, patience) {
        (Ok(()), Some(patience)) => active(&state.fleet, patience, report.revision).await,
        (done, _) => done,
    };
    match done {
        Ok(()) => Ok(axum::Json(report)),
        Err(problem) => {
            let report = serde_json::to_value(&report).unwrap_or_default();
            Err(problem.with("imported", report))
        }
    }
}

/// A group on its way to the disk: the line numbers, and what comes of it.
type Group = (Vec<(u64, String)>, Pending<Vec<Result<Outcome, Refusal>>>);

struct Import {
    state: ApiState,
    report: Imported,
    line: u64,
    buffer: Vec<u8>,
    /// The line in the buffer is too long; the rest of it is skipped.
    skipping: bool,
    specs: Vec<(u64, AppSpec)>,
    spec_bytes: usize,
    /// The group before, being made durable while this one is read.
    pending: Option<Group>,
}

impl Import {
    fn new(state: ApiState) -> Import {
        let report = Imported {
            revision: state.registry.revision(),
            ..Imported::default()
        };
        Import {
            state,
            report,
            line: 1,
            buffer: Vec::new(),
            skipping: false,
            specs: Vec::new(),
            spec_bytes: 0,
            pending: None,
        }
    }

    async fn read(&mut self, body: Body) -> Result<(), Problem> {
        let mut chunks = body.into_data_stream();
        let broken = loop {
            match tokio::time::timeout(PAUSE_MAX, chunks.next()).await {
                Ok(Some(Ok(chunk))) => self.take(&chunk).await?,
                Ok(None) => break None,
                Ok(Some(Err(_))) => {
                    let detail = "the body broke off; whole lines before that count";
                    break Some(Problem::new(StatusCode::BAD_REQUEST, "broken_body", detail));
                }
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
        broken.map_or(Ok(()), Err)
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
        let pending = self
            .state
            .registry
            .submit(move |staging| Ok(staging.import(&specs)))
            .await?;
        self.pending = Some((names, pending));
        Ok(())
    }

    async fn settle_pending(&mut self) -> Result<(), Problem> {
        let Some((lines, pending)) = self.pending.take() else {
            return Ok(());
        };
        for ((line, app), outcome) in lines.into_iter().zip(pending.settled().await?) {
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

/// Every app, a line each, in order of name; what an import takes.
#[utoipa::path(get, path = "/v1/export", tag = "bulk",
    responses((status = 200, content_type = "application/x-ndjson", body = ExportLine),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn export(State(state): State<ApiState>, caller: Caller) -> Result<Response, Problem> {
    caller.must_read_all()?;
    let registry = state.registry;
    let pages = stream::unfold(Some(String::new()), move |after| {
        let records = after.map(|after| registry.page(&after, EXPORT_PAGE));
        std::future::ready(
            records
                .filter(|records| !records.is_empty())
                .map(|records| {
                    let full = records.len() == EXPORT_PAGE;
                    let last = records
                        .last()
                        .filter(|_| full)
                        .map(|record| record.name.clone());
                    let mut text = Vec::new();
                    for record in records {
                        serde_json::to_writer(&mut text, &ExportLine::of(record))
                            .expect("a line must be JSON");
                        text.push(b'\n');
                    }
                    (Ok::<Bytes, Infallible>(text.into()), last)
                }),
        )
    });
    Ok((
        [(header::CONTENT_TYPE, "application/x-ndjson")],
        Body::from_stream(pages),
    )
        .into_response())
}
