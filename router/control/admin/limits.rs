//! `/limits`: the named limits, shown and changed; and with what they counted,
//! for the overview.
//!
//! Owns the answers. What a limit may be is decided in
//! [`shape`](crate::control::limits::shape); that it is durable, by the
//! registry.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::numbers::Numbers;
use super::orders::patience;
use crate::control::AdminState;
use crate::control::api::answer::etag;
use crate::control::api::problem::Problem;
use crate::control::api::request::{Query, Wait, condition, must_be, parse, whole_body};
use crate::control::limits::Known;
use crate::control::limits::shape::{LimitShape, checked_name, shown};
use crate::control::refusal::Refusal;
use crate::observe::limits as rows;
use crate::policy::limit::own;

/// `GET /limits`
pub(super) async fn list(State(state): State<AdminState>) -> Json<Value> {
    let limits: Vec<Value> = state.registry.limits().all().iter().map(shown).collect();
    Json(json!({ "limits": limits }))
}

/// Every limit as it is shown, with `own` (it is on a flow of the router's) and
/// what all edges counted: totals, `null` where nobody counts.
pub(super) fn counted(state: &AdminState, numbers: &Numbers) -> Vec<Value> {
    let admitted = numbers.by_label(&rows::ADMITTED);
    let refused = numbers.by_label(&rows::REFUSED);
    let known = state.registry.limits().all();
    let views = known.iter().map(|known| {
        let mut view = shown(known);
        view["own"] = json!(own::is_own(&known.name));
        view["admitted"] = json!(admitted.get(&known.name));
        view["refused"] = json!(refused.get(&known.name));
        view
    });
    views.collect()
}

/// `GET /limits/{name}`. Always whole: the tag is of what is stored, and says
/// nothing of a file's number.
pub(super) async fn show(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let known = known(&state, &checked_name(name)?)?;
    Ok(answer(StatusCode::OK, &known))
}

/// `PUT /limits/{name}`
pub(super) async fn put(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(Wait { wait, timeout }): Query<Wait>,
    request: Request,
) -> Result<Response, Problem> {
    let patience = patience(wait, timeout)?;
    let name = checked_name(name)?;
    let condition = condition(request.headers())?;
    must_be(request.headers(), "application/json")?;
    let body = whole_body(request.into_body()).await?;
    let record = parse::<LimitShape>(&body)?.record(&name)?;
    let change = state
        .registry
        .change(move |staging| staging.put_limit(&record, &condition));
    let outcome = change.await?;
    let known = known(&state, &name)?;
    if outcome.changed {
        let now = said(&known);
        let text = format!("an operator set the limit {name}: {now}");
        state.events.say("limit_set", "", "", text);
    }
    wait_held(&state, patience).await?;
    let status = match outcome.created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok(answer(status, &known))
}

/// `DELETE /limits/{name}`: of the router's own flows, back to what holds by
/// itself.
pub(super) async fn delete(
    State(state): State<AdminState>,
    Path(name): Path<String>,
    Query(Wait { wait, timeout }): Query<Wait>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let patience = patience(wait, timeout)?;
    let name = checked_name(name)?;
    let condition = condition(&headers)?;
    let known = known(&state, &name)?;
    let is_written = known.holds.is_some_and(|record| record.is_from_file);
    if is_written && !own::is_own(&name) {
        // Without what is stored, the file's number would be for everything.
        let detail = format!("a file in rates_dir says what {name} is: remove that first");
        return Err(Problem::new(
            StatusCode::CONFLICT,
            "limit_from_file",
            detail,
        ));
    }
    let key = name.clone();
    let change = state
        .registry
        .change(move |staging| staging.delete_limit(&key, &condition));
    let revision = match change.await {
        Ok(outcome) => {
            let text = format!("an operator removed the limit {name}");
            state.events.say("limit_removed", "", "", text);
            Some(outcome.revision)
        }
        // It stands as it does by itself.
        Err(Refusal::NoLimit(_)) if own::is_own(&name) => None,
        Err(refusal) => return Err(refusal.into()),
    };
    wait_held(&state, patience).await?;
    Ok(Json(json!({ "name": name, "revision": revision })))
}

fn known(state: &AdminState, name: &str) -> Result<Known, Problem> {
    let known = state.registry.limits().get(name);
    known.ok_or_else(|| Refusal::NoLimit(name.to_owned()).into())
}

fn answer(status: StatusCode, known: &Known) -> Response {
    let mut response = (status, Json(shown(known))).into_response();
    if let Some(stored) = &known.stored {
        let headers = response.headers_mut();
        headers.insert(header::ETAG, etag(stored.revision));
    }
    response
}

/// A limit in a few words, for an event.
fn said(known: &Known) -> String {
    let shown = shown(known);
    let fields = shown.as_object().into_iter().flatten();
    let told = fields.filter(|(field, _)| !matches!(field.as_str(), "name" | "revision"));
    let told = told.map(|(field, value)| match value.as_str() {
        Some(text) => format!("{field} {text}"),
        None => format!("{field} {value}"),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Waits until every edge that serves goes by what holds now.
async fn wait_held(state: &AdminState, patience: Option<Duration>) -> Result<(), Problem> {
    let Some(patience) = patience else {
        return Ok(());
    };
    let version = state.registry.limits().version();
    if state.fleet.wait_limited(version, patience).await {
        return Ok(());
    }
    let detail = format!(
        "the change is durable and stands, but not every edge went by it within {} ms ({} connected)",
        patience.as_millis(),
        state.fleet.edges().len()
    );
    let problem = Problem::new(StatusCode::GATEWAY_TIMEOUT, "not_active_in_time", detail);
    Err(problem)
}
