//! `/events`: what happened, as server-sent events.
//!
//! The latest `limit` (100) first, then each as it happens, unless
//! `follow=false`. A reader that falls behind is told how many it missed. With
//! `Accept: application/json` the latest come as one JSON document.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event as Sse, KeepAlive};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::control::AdminState;
use crate::control::api::problem::Problem;
use crate::control::api::request::Query;
use crate::feed::messages::Event;

const LATEST: usize = 100;
const LATEST_MAX: usize = 1_000;
/// A comment this often keeps the connection from looking dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `?limit=&follow=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    limit: Option<usize>,
    #[serde(default = "yes")]
    follow: bool,
}

fn yes() -> bool {
    true
}

/// `GET /events`
pub(super) async fn events(
    State(state): State<AdminState>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let limit = asked.limit.unwrap_or(LATEST);
    if limit > LATEST_MAX {
        return Err(Problem::field(
            "limit",
            format!("limit: expected 0 to {LATEST_MAX}"),
        ));
    }
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        let events: Vec<Value> = state.events.latest(limit).iter().map(view).collect();
        return Ok(Json(json!({ "events": events })).into_response());
    }
    let (latest, followed) = state.events.follow(limit);
    let latest = stream::iter(latest).map(|event| told(&event));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(if asked.follow {
        let followed = BroadcastStream::new(followed).map(|event| match event {
            Ok(event) => told(&event),
            Err(BroadcastStreamRecvError::Lagged(missed)) => Sse::default()
                .event("missed")
                .data(json!({ "missed": missed }).to_string()),
        });
        sse(latest.chain(followed))
            .keep_alive(keep_alive)
            .into_response()
    } else {
        sse(latest).into_response()
    })
}

fn sse<S: Stream<Item = Sse> + Send + 'static>(
    events: S,
) -> axum::response::Sse<impl Stream<Item = Result<Sse, Infallible>>> {
    axum::response::Sse::new(events.map(Ok))
}

fn told(event: &Event) -> Sse {
    Sse::default()
        .event(kind(event))
        .data(view(event).to_string())
}

/// An edge's word for it, as far as it fits on an `event:` line.
fn kind(event: &Event) -> String {
    let word = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    let kind: String = event.kind.chars().filter(word).take(64).collect();
    if kind.is_empty() {
        "event".to_owned()
    } else {
        kind
    }
}

/// An event as JSON.
pub(super) fn view(event: &Event) -> Value {
    json!({
        "at_ms": event.at_ms,
        "kind": event.kind,
        "app": event.app,
        "backend": event.backend,
        "text": event.text,
    })
}
