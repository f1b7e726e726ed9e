//! An operator's orders about a backend: drain, eject, readmit.
//!
//! Each is durable before it is answered and said in an event; said again, it
//! changes nothing. Never decides about health: that is the edges'.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::PATIENCE;
use super::backend::BY_OPERATOR;
use crate::control::AdminState;
use crate::control::api::answer::{active, not_active};
use crate::control::api::problem::Problem;
use crate::control::api::request::{Query, Wait, WaitFor};
use crate::control::api::span::Span;
use crate::control::staging::{Condition, Outcome};
use crate::feed::messages::{AppRecord, Order, Standing};

/// How long a drained backend may take for what it has, if nothing is said.
const DRAIN: Span = Span { ms: 30_000 };
const DRAIN_MAX: Span = Span { ms: 3_600_000 };
/// How long an answer may wait to be active: less than any answer may take.
const WAIT_MAX: Span = Span { ms: 9_000 };

/// `?drain=30s&wait=active&timeout=5s`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Drain {
    drain: Option<String>,
    wait: Option<WaitFor>,
    timeout: Option<Span>,
}

/// How long to wait; `None`: not at all.
pub(super) fn patience(
    wait: Option<WaitFor>,
    timeout: Option<Span>,
) -> Result<Option<Duration>, Problem> {
    const { assert!(WAIT_MAX.ms < PATIENCE.as_millis() as u64) };
    if timeout.is_some_and(|timeout| timeout > WAIT_MAX) {
        let detail = format!("timeout: expected at most {WAIT_MAX} on the admin port");
        return Err(Problem::field("timeout", detail));
    }
    Wait { wait, timeout }.patience()
}

async fn wait_active(
    state: &AdminState,
    patience: Option<Duration>,
    outcome: &Outcome,
) -> Result<(), Problem> {
    match patience {
        Some(patience) => active(&state.fleet, patience, outcome.revision).await,
        None => Ok(()),
    }
}

/// `POST /apps/{app}/backends/{id}/drain`: no new requests; gone when its last
/// is answered or the time is up.
pub(super) async fn drain(
    State(state): State<AdminState>,
    Path((app, id)): Path<(String, String)>,
    Query(query): Query<Drain>,
) -> Result<Json<Value>, Problem> {
    let patience = patience(query.wait, query.timeout)?;
    let drain = match query.drain.as_deref().map(Span::parse) {
        None => DRAIN,
        Some(Some(drain)) if drain <= DRAIN_MAX => drain,
        Some(_) => {
            let detail = "drain: expected a duration up to 1h, such as 30s, or a number of seconds";
            return Err(Problem::field("drain", detail));
        }
    };
    let (key, backend) = (app.clone(), id.clone());
    let change = state
        .registry
        .change(move |staging| staging.drain_backend(&key, &backend, drain.ms, &Condition::Always));
    let outcome = change.await?;
    if outcome.changed {
        let text = format!(
            "an operator takes it out of rotation; at most {drain} for the requests it has"
        );
        state.events.say("backend_draining", &app, &id, text);
    }
    wait_active(&state, patience, &outcome).await?;
    Ok(Json(json!({
        "revision": outcome.revision,
        "app": app,
        "id": id,
        "standing": "draining",
        "drain": drain,
    })))
}

/// `POST /apps/{app}/backends/{id}/eject`: no new requests until it is
/// readmitted, or registered at another address. Done even if it is the last:
/// the answer and the event then say so.
pub(super) async fn eject(
    State(state): State<AdminState>,
    Path((app, id)): Path<(String, String)>,
    Query(Wait { wait, timeout }): Query<Wait>,
) -> Result<Json<Value>, Problem> {
    let patience = patience(wait, timeout)?;
    let outcome = set_ejected(&state, &app, &id, true).await?;
    let left = outcome.record.as_ref().map_or(0, routable);
    let warning = (left == 0).then_some(
        "the app has no other backend that requests may go to: they fail until one is there",
    );
    if outcome.changed {
        let mut text = format!(
            "out of rotation: an operator ejected it, until it is readmitted or registered at \
             another address; {left} others may take requests"
        );
        if let Some(warning) = warning {
            text.push_str(": ");
            text.push_str(warning);
        }
        state.events.say("backend_ejected", &app, &id, text);
    }
    wait_active(&state, patience, &outcome).await?;
    let mut answer = json!({
        "revision": outcome.revision,
        "app": app,
        "id": id,
        "ejected": true,
        "reason": BY_OPERATOR,
        "routable": left,
    });
    if let Some(warning) = warning {
        answer["warning"] = json!(warning);
    }
    Ok(Json(answer))
}

/// `POST /apps/{app}/backends/{id}/readmit`: an operator's ejection ends, and
/// every connected edge forgets what it holds against the backend. `edges`
/// says how many were there and how many confirmed.
pub(super) async fn readmit(
    State(state): State<AdminState>,
    Path((app, id)): Path<(String, String)>,
    Query(Wait { wait, timeout }): Query<Wait>,
) -> Result<Json<Value>, Problem> {
    let patience = patience(wait, timeout)?;
    let outcome = set_ejected(&state, &app, &id, false).await?;
    if outcome.changed {
        let text = "back in rotation: an operator readmitted it, after having ejected it";
        state
            .events
            .say("backend_readmitted", &app, &id, text.to_owned());
    }
    let order = Order {
        verb: "readmit".to_owned(),
        app: app.clone(),
        backend: id.clone(),
    };
    state.fleet.order(&order).await;
    // A report that comes after the order says that it was carried out.
    let asked = state.fleet.edges().len();
    let answered = state.fleet.collect(&app, 1).await.len();
    wait_active(&state, patience, &outcome).await?;
    if let Some(patience) = patience
        && answered < asked
    {
        return Err(not_active(&state.fleet, patience, outcome.revision));
    }
    Ok(Json(json!({
        "revision": outcome.revision,
        "app": app,
        "id": id,
        "ejected": false,
        "edges": { "asked": asked, "answered": answered },
    })))
}

async fn set_ejected(
    state: &AdminState,
    app: &str,
    id: &str,
    ejected: bool,
) -> Result<Outcome, Problem> {
    let (app, id) = (app.to_owned(), id.to_owned());
    let change = state
        .registry
        .change(move |staging| staging.set_ejected(&app, &id, ejected));
    Ok(change.await?)
}

/// Backends that requests may go to, be it last: neither on their way out nor
/// taken out by an operator.
fn routable(record: &AppRecord) -> usize {
    let backends = record.backends.iter();
    backends
        .filter(|backend| backend.standing() != Standing::Draining && !backend.ejected)
        .count()
}
