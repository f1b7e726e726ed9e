//! `/v1/import` and `/v1/export`: every app, a line each.
//!
//! Both stream: an import holds one group of lines, an export one page of
//! apps, whatever the number of apps. An import that is asked for lines
//! (`Accept: application/x-ndjson`) tells each second how far it is.

mod lines;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use utoipa::ToSchema;

use super::ApiState;
use super::answer::active;
use super::problem::{Problem, ProblemBody};
use super::request::{Permitted, Query, Wait, WaitFor, must_be};
use super::shapes::{ExportLine, ImportLine};
use super::span::Span;
use crate::control::staging::ImportTally;
use crate::control::tokens::Caller;
use lines::Import;

/// What lines of JSON are called.
const NDJSON: &str = "application/x-ndjson";
/// How often an import tells how far it is.
const PROGRESS: Duration = Duration::from_secs(1);
/// Apps of an export's page.
const EXPORT_PAGE: usize = 500;

/// What became of an import.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
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
    /// What the import came to so far; given back as `?tally=` it lets another
    /// request go on with the same import.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tally: String,
    /// The first of the refused lines.
    pub errors: Vec<LineError>,
}

/// A line that was refused.
#[derive(Clone, Debug, Serialize, ToSchema)]
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

/// How far an import is; the last one is its report.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImportProgress {
    /// Whether this is the last line.
    pub done: bool,
    /// Since the import began.
    pub seconds: f64,
    /// Lines read in that time, each second.
    pub lines_per_second: f64,
    /// So far. Of the lines read, those not yet in one of the other counts are
    /// on their way to the disk.
    #[serde(flatten)]
    pub report: Imported,
    /// Why it ended before its last line; a problem as other answers have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ProblemBody>)]
    pub problem: Option<ProblemBody>,
}

/// What an import may be told by its query.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportQuery {
    wait: Option<WaitFor>,
    timeout: Option<Span>,
    confirm: Option<Confirmation>,
    tally: Option<String>,
}

/// What is meant, however unlikely it looks.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Confirm {
    /// `shrink`: the import may leave more than 20 % and 100 fewer backends than
    /// were registered; without it, that is refused.
    #[expect(
        dead_code,
        reason = "read as a part of `ImportQuery`; here for the document"
    )]
    pub confirm: Option<Confirmation>,
    /// `tally` of the answer before, where one import is sent in several
    /// requests: how many backends vanish is judged over all of them.
    #[expect(
        dead_code,
        reason = "read as a part of `ImportQuery`; here for the document"
    )]
    pub tally: Option<String>,
}

/// What can be confirmed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confirmation {
    /// That backends vanish.
    Shrink,
}

/// Puts many apps, a JSON object a line. A line that is wrong is reported and
/// the others still count. Stops, with what was done so far, only when nothing
/// can be stored or read any more.
///
/// With `Accept: application/x-ndjson` the answer is a line of JSON each second
/// (`ImportProgress`), and a last one with the report.
#[utoipa::path(post, path = "/v1/import", tag = "bulk", params(Wait, Confirm),
    request_body(content = ImportLine, content_type = "application/x-ndjson"),
    responses((status = 200, content((Imported = "application/json"), (ImportProgress = "application/x-ndjson"))),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 408, body = ProblemBody), (status = 409, body = ProblemBody), (status = 415, body = ProblemBody), (status = 504, body = ProblemBody),
        (status = 507, body = ProblemBody)))]
pub async fn import(
    State(state): State<ApiState>,
    caller: Caller,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> Result<Response, Problem> {
    caller.must_operate()?;
    let ImportQuery {
        wait,
        timeout,
        confirm,
        tally,
    } = query;
    let patience = Wait { wait, timeout }.patience()?;
    let tally = match tally.filter(|told| !told.is_empty()) {
        None => ImportTally::new(confirm.is_some()),
        Some(told) => ImportTally::resume(&told, confirm.is_some()).ok_or_else(|| {
            Problem::field("tally", "tally: expected what the answer before said")
        })?,
    };
    must_be(request.headers(), NDJSON)?;
    let tells = accepts_lines(request.headers());
    let mut running = Running {
        import: Import::new(state.clone(), request.into_body(), tally),
        state,
        patience,
        begun: Instant::now(),
    };
    if !tells {
        let done = running.import.advance(None).await.map(|_| ());
        return match running.settle(done).await {
            (report, None) => Ok(axum::Json(report).into_response()),
            (report, Some(problem)) => {
                let report = serde_json::to_value(&report).unwrap_or_default();
                Err(problem.with("imported", report))
            }
        };
    }
    // What is known within the first second is answered as a whole; and a
    // client that waits to be told to go on is told by reading.
    let first = running.step().await;
    let lines = stream::unfold(Some((running, Some(first))), async |going| {
        let (mut running, step) = going?;
        let step = match step {
            Some(step) => step,
            None => running.step().await,
        };
        let (line, running) = running.line(step).await;
        Some((
            Ok::<Bytes, Infallible>(line),
            running.map(|running| (running, None)),
        ))
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response())
}

/// Whether the caller asks for lines rather than a document.
fn accepts_lines(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|kind| {
            let kind = kind.split(';').next().unwrap_or_default();
            kind.trim().eq_ignore_ascii_case(NDJSON)
        })
}

/// An import under way.
struct Running {
    import: Import,
    state: ApiState,
    patience: Option<Duration>,
    begun: Instant,
}

/// What a second of it brought: whether it is at its end.
type Step = Result<bool, Problem>;

impl Running {
    async fn step(&mut self) -> Step {
        self.import.advance(Some(Instant::now() + PROGRESS)).await
    }

    /// The report, once its changes are as active as was asked; and what ended
    /// it too early.
    async fn settle(self, done: Result<(), Problem>) -> (Imported, Option<Problem>) {
        let report = self.import.report();
        let done = match (done, self.patience) {
            (Ok(()), Some(patience)) => active(&self.state.fleet, patience, report.revision).await,
            (done, _) => done,
        };
        (report, done.err())
    }

    /// The line that tells of a step, and what goes on after it.
    async fn line(self, step: Step) -> (Bytes, Option<Running>) {
        let begun = self.begun;
        let done = match step {
            Ok(false) => {
                let line = progress(begun, false, self.import.report(), None);
                return (line, Some(self));
            }
            Ok(true) => Ok(()),
            Err(problem) => Err(problem),
        };
        let (report, problem) = self.settle(done).await;
        (progress(begun, true, report, problem), None)
    }
}

fn progress(begun: Instant, done: bool, report: Imported, problem: Option<Problem>) -> Bytes {
    let seconds = begun.elapsed().as_secs_f64();
    let progress = ImportProgress {
        done,
        seconds,
        lines_per_second: report.lines as f64 / seconds.max(1e-3),
        report,
        problem: problem.map(Problem::into_body),
    };
    let mut line = serde_json::to_vec(&progress).expect("a line must be JSON");
    line.push(b'\n');
    line.into()
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
    Ok(([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(pages)).into_response())
}
