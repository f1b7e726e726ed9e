//! Answers to changes: the revision, and waiting for it to be active.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::ApiState;
use super::problem::Problem;
use super::request::{Wait, WaitFor};
use super::span::Span;
use crate::control::fleet::Fleet;
use crate::control::staging::Outcome;

/// How long `?wait=active` waits unless told.
const WAIT_DEFAULT: Span = Span { ms: 5_000 };
/// How long it may be told to wait.
const WAIT_MAX: Span = Span { ms: 60_000 };

impl Wait {
    /// How long to wait; `None`: not at all.
    ///
    /// # Errors
    /// The timeout is out of range.
    pub fn patience(&self) -> Result<Option<Duration>, Problem> {
        let timeout = self.timeout.unwrap_or(WAIT_DEFAULT);
        if timeout > WAIT_MAX {
            return Err(Problem::field(
                "timeout",
                format!("timeout: expected at most {WAIT_MAX}"),
            ));
        }
        Ok(self
            .wait
            .map(|WaitFor::Active| Duration::from_millis(timeout.ms)))
    }
}

/// Answers a change once it is as active as the caller asked.
pub async fn changed<T: Serialize>(
    state: &ApiState,
    patience: Option<Duration>,
    outcome: &Outcome,
    body: &T,
) -> Result<Response, Problem> {
    if let Some(patience) = patience {
        active(&state.fleet, patience, outcome.revision).await?;
    }
    let status = if outcome.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = (status, axum::Json(body)).into_response();
    if let Some(record) = &outcome.record {
        response
            .headers_mut()
            .insert(header::ETAG, etag(record.revision));
    }
    Ok(response)
}

/// Waits until every edge routes by a revision.
///
/// # Errors
/// 504: it took longer. The change stands.
pub async fn active(fleet: &Fleet, patience: Duration, revision: u64) -> Result<(), Problem> {
    if fleet.wait_active(revision, patience).await {
        return Ok(());
    }
    Err(not_active(fleet, patience, revision))
}

/// 504: not every edge has it yet. The change stands.
pub fn not_active(fleet: &Fleet, patience: Duration, revision: u64) -> Problem {
    let connected = fleet.edges().len();
    let missing: Vec<String> = fleet.missing().iter().map(u32::to_string).collect();
    let missing = match missing.as_slice() {
        [] => String::new(),
        pids => format!("; not connected: edge {}", pids.join(", ")),
    };
    Problem::new(
        StatusCode::GATEWAY_TIMEOUT,
        "not_active_in_time",
        format!(
            "revision {revision} is durable and stands, but not every edge routed by it within {} ms \
             ({connected} connected{missing})",
            patience.as_millis()
        ),
    )
    .with("revision", revision)
}

/// An app's `ETag`: its revision.
pub fn etag(revision: u64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{revision}\""))
        .expect("a quoted number must be a header value")
}
