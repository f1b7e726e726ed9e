//! `/v1/watch`: changes as server-sent events, resumable by revision.
//!
//! A watcher has a cursor into the registry's log and nothing else: one that
//! reads slowly holds no memory, and one that falls off the log's end is told.

// utoipa repeats the types of arguments with their whole path.
#![allow(unused_qualifications)]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, SemaphorePermit, watch as channel};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::problem::{Problem, ProblemBody};
use super::request::Query;
use super::shapes::App;
use crate::control::changes::{Compacted, Entry, Kind};
use crate::control::tokens::Caller;

/// Log entries taken at a time.
const ENTRIES: usize = 16;
/// Watchers at once. Each holds a connection for as long as it likes, and
/// those that register and renew leases need some too.
const WATCHERS_MAX: usize = 512;
/// Their seats, of the whole process.
static SEATS: Semaphore = Semaphore::const_new(WATCHERS_MAX);
/// A comment keeps the connection open this often.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where to start.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Since {
    /// Changes after this revision; absent: from now on. `Last-Event-ID` wins.
    pub since: Option<u64>,
}

/// One change of one app: the `data` of a `change` event.
#[derive(Debug, Serialize, ToSchema)]
pub struct WatchedChange {
    /// The revision it is part of.
    pub revision: u64,
    /// When that was committed, Unix milliseconds.
    pub committed_at_ms: u64,
    /// `app_put`, `app_deleted`, `domain_claimed`, `domain_released`,
    /// `backend_put`, `backend_deleted`, `backend_draining`, `lease_expired`,
    /// `lease_renewed`, `backend_ejected`, `backend_readmitted` (both an operator's word).
    pub kind: &'static str,
    /// The app.
    pub app: String,
    /// The host concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The backend concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The app as it is now, which may be newer; null: gone.
    pub value: Option<App>,
}

/// Follows changes as they are made. The event's `id` is the revision; it is
/// set on the last event of each revision, so a client that resumes with it
/// misses nothing. An app's token sees its app's changes only.
#[utoipa::path(get, path = "/v1/watch", tag = "watch",
    params(Since, ("Last-Event-ID" = Option<String>, Header, description = "as `since`")),
    responses((status = 200, content_type = "text/event-stream", body = WatchedChange),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 410, description = "compacted: read everything, then watch from its revision", body = ProblemBody),
        (status = 503, description = "too many watchers", body = ProblemBody)))]
pub async fn watch(
    State(state): State<ApiState>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<Since>,
) -> Result<Response, Problem> {
    let resumed = match headers.get("last-event-id") {
        None => None,
        Some(id) => Some(
            id.to_str()
                .ok()
                .and_then(|id| id.trim().parse().ok())
                .ok_or_else(|| {
                    Problem::field("last-event-id", "Last-Event-ID: expected a revision")
                })?,
        ),
    };
    let now = state.registry.revision();
    let since = resumed.or(query.since).unwrap_or(now);
    if since > now {
        // A revision of another life of this store: nothing can follow from it.
        return Err(gone(since, now));
    }
    state
        .registry
        .changes(since, 1)
        .map_err(|Compacted { floor }| gone(since, floor))?;
    let seat = SEATS.try_acquire().map_err(|_| {
        let detail = format!("{WATCHERS_MAX} watchers are connected, and there may be no more");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too_many_watchers", detail)
    })?;
    let watcher = Watcher {
        _seat: seat,
        head: state.registry.head(),
        stopping: state.stopping.clone(),
        state,
        caller,
        cursor: since,
        waiting: VecDeque::new(),
        ended: false,
    };
    let events = stream::unfold(watcher, Watcher::next);
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEPALIVE))
        .into_response())
}

fn gone(since: u64, floor: u64) -> Problem {
    Problem::new(
        StatusCode::GONE,
        "compacted",
        format!("revision {since} cannot be followed from; read everything and watch from there"),
    )
    .with("floor", floor)
}

struct Watcher {
    /// Free again when the watcher goes.
    _seat: SemaphorePermit<'static>,
    state: ApiState,
    caller: Caller,
    head: channel::Receiver<u64>,
    stopping: channel::Receiver<bool>,
    cursor: u64,
    waiting: VecDeque<(Entry, usize)>,
    ended: bool,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Watcher)> {
        loop {
            if self.ended || *self.stopping.borrow() {
                return None;
            }
            if let Some(event) = self.take() {
                return Some((Ok(event), self));
            }
            let head = *self.head.borrow_and_update();
            if head > self.cursor {
                match self.state.registry.changes(self.cursor, ENTRIES) {
                    Ok(entries) => {
                        self.cursor = entries.last().map_or(self.cursor, |entry| entry.revision);
                        self.waiting
                            .extend(entries.into_iter().map(|entry| (entry, 0)));
                    }
                    Err(Compacted { floor }) => {
                        self.ended = true;
                        let data = format!("{{\"code\":\"compacted\",\"floor\":{floor}}}");
                        return Some((Ok(Event::default().event("compacted").data(data)), self));
                    }
                }
                continue;
            }
            tokio::select! {
                moved = self.head.changed() => moved.ok()?,
                stopped = self.stopping.changed() => stopped.ok()?,
            }
        }
    }

    /// The next event this caller may see.
    fn take(&mut self) -> Option<Event> {
        while let Some((entry, at)) = self.waiting.front_mut() {
            let Some(touch) = entry.touches.get(*at) else {
                self.waiting.pop_front();
                continue;
            };
            *at += 1;
            if !self.caller.may_read(&touch.app) {
                continue;
            }
            let subject = (!touch.subject.is_empty()).then(|| touch.subject.to_string());
            let is_domain = matches!(touch.kind, Kind::DomainClaimed | Kind::DomainReleased);
            let (domain, backend) = if is_domain {
                (subject, None)
            } else {
                (None, subject)
            };
            let last = !entry.touches[*at..]
                .iter()
                .any(|later| self.caller.may_read(&later.app));
            let change = WatchedChange {
                revision: entry.revision,
                committed_at_ms: entry.committed_at_ms,
                kind: touch.kind.name(),
                app: touch.app.to_string(),
                domain,
                backend,
                value: self.state.registry.app(&touch.app).map(App::of),
            };
            let data = serde_json::to_string(&change).expect("a change must be JSON");
            let event = Event::default().event("change").data(data);
            return Some(if last {
                event.id(entry.revision.to_string())
            } else {
                event
            });
        }
        None
    }
}
