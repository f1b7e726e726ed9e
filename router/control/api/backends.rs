//! `/v1/apps/{app}/backends` and `/v1/heartbeats`: register, renew, remove.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ApiState;
use super::answer::changed;
use super::problem::{Problem, ProblemBody};
use super::request::{
    Conditional, Json, Path, Permitted, Query, Wait, WaitFor, app_name, backend_id,
};
use super::shapes::{Backend, BackendBody};
use super::span::Span;
use crate::control::refusal::Refusal;
use crate::control::staging::Outcome;
use crate::control::tokens::Caller;

/// Heartbeats of one request, at most.
const HEARTBEATS_MAX: usize = 10_000;
/// The longest drain: an hour.
const DRAIN_MAX: Span = Span { ms: 3_600_000 };

/// A backend, with the revision it is true from.
#[derive(Debug, Serialize, ToSchema)]
pub struct Registered {
    /// The app's revision.
    pub revision: u64,
    /// The app.
    pub app: String,
    /// The backend.
    pub id: String,
    /// What is registered; absent once it is removed.
    #[serde(flatten)]
    pub backend: Option<Backend>,
}

impl Registered {
    fn of(outcome: &Outcome, app: String, id: String) -> Registered {
        let records = outcome.record.iter().flat_map(|record| &record.backends);
        let backend = records
            .into_iter()
            .find(|record| record.id == id)
            .map(Backend::of);
        Registered {
            revision: outcome.revision,
            app,
            id,
            backend,
        }
    }
}

/// Registers a backend, or renews it: in rotation, its lease for a full period. What an operator
/// ejected stays out unless its address is another.
#[utoipa::path(put, path = "/v1/apps/{app}/backends/{id}", tag = "backends",
    params(("app" = String, Path), ("id" = String, Path, description = "`[A-Za-z0-9][A-Za-z0-9._-]{0,127}`"),
        ("If-Match" = Option<String>, Header, description = "only if the app is at this ETag"), Wait),
    request_body = BackendBody,
    responses((status = 201, body = Registered), (status = 200, body = Registered), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 504, body = ProblemBody)))]
pub async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    Path((app, id)): Path<(String, String)>,
    Query(wait): Query<Wait>,
    Conditional(condition): Conditional,
    Json(body): Json<BackendBody>,
) -> Result<Response, Problem> {
    let (app, id) = (app_name(app)?, backend_id(id)?);
    caller.must_change(&app)?;
    let patience = wait.patience()?;
    let spec = body.spec(id.clone(), "")?;
    let name = app.clone();
    let outcome = state
        .registry
        .change(move |staging| staging.put_backend(&name, &spec, &condition))
        .await?;
    changed(
        &state,
        patience,
        &outcome,
        &Registered::of(&outcome, app, id),
    )
    .await
}

/// Reads a backend.
#[utoipa::path(get, path = "/v1/apps/{app}/backends/{id}", tag = "backends",
    params(("app" = String, Path), ("id" = String, Path)),
    responses((status = 200, body = Registered), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path((app, id)): Path<(String, String)>,
) -> Result<axum::Json<Registered>, Problem> {
    let (app, id) = (app_name(app)?, backend_id(id)?);
    caller.must_read(&app)?;
    let record = state
        .registry
        .app(&app)
        .ok_or_else(|| Refusal::NoApp(app.clone()))?;
    let Some(found) = record.backends.iter().find(|record| record.id == id) else {
        return Err(Refusal::NoBackend { app, id }.into());
    };
    Ok(axum::Json(Registered {
        revision: record.revision,
        app,
        id,
        backend: Some(Backend::of(found)),
    }))
}

/// How to remove a backend.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Removal {
    /// No new requests from now on; gone when its last is answered or this time
    /// is up, such as `30s`, at most `1h`. Absent: gone at once.
    #[param(value_type = Option<String>)]
    pub drain: Option<Span>,
    /// `active`: answer once every edge routes by the change.
    pub wait: Option<WaitFor>,
    /// How long to wait, such as `5s`, at most `60s`; default `5s`.
    #[param(value_type = Option<String>)]
    pub timeout: Option<Span>,
}

/// Removes a backend, at once or after a drain.
#[utoipa::path(delete, path = "/v1/apps/{app}/backends/{id}", tag = "backends",
    params(("app" = String, Path), ("id" = String, Path),
        ("If-Match" = Option<String>, Header, description = "only if the app is at this ETag"), Removal),
    responses((status = 200, body = Registered), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 412, body = ProblemBody),
        (status = 504, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path((app, id)): Path<(String, String)>,
    Query(removal): Query<Removal>,
    Conditional(condition): Conditional,
) -> Result<Response, Problem> {
    let (app, id) = (app_name(app)?, backend_id(id)?);
    caller.must_change(&app)?;
    let patience = Wait {
        wait: removal.wait,
        timeout: removal.timeout,
    }
    .patience()?;
    let drain = removal.drain.unwrap_or(Span { ms: 0 });
    if drain > DRAIN_MAX {
        return Err(Problem::field(
            "drain",
            format!("drain: expected at most {DRAIN_MAX}"),
        ));
    }
    let (name, backend) = (app.clone(), id.clone());
    let outcome = state
        .registry
        .change(move |staging| match drain.ms {
            0 => staging.delete_backend(&name, &backend, &condition),
            ms => staging.drain_backend(&name, &backend, ms, &condition),
        })
        .await?;
    changed(
        &state,
        patience,
        &outcome,
        &Registered::of(&outcome, app, id),
    )
    .await
}

/// Renews a backend's lease; a suspect one is back in rotation.
#[utoipa::path(post, path = "/v1/apps/{app}/backends/{id}/heartbeat", tag = "backends",
    params(("app" = String, Path), ("id" = String, Path)),
    responses((status = 204, description = "heard"), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody),
        (status = 404, description = "register again", body = ProblemBody)))]
pub async fn heartbeat(
    State(state): State<ApiState>,
    caller: Caller,
    Path((app, id)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let (app, id) = (app_name(app)?, backend_id(id)?);
    caller.must_change(&app)?;
    state.registry.heartbeat(&app, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Backends that live.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Heartbeats {
    /// `[app, id]` each, at most 10,000.
    #[schema(value_type = Vec<Vec<String>>, example = json!([["shop", "web.1"]]))]
    pub backends: Vec<(String, String)>,
}

/// What became of many heartbeats.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeartbeatsHeard {
    /// How many were known.
    pub renewed: usize,
    /// `[app, id]` of those that must register again.
    #[schema(value_type = Vec<Vec<String>>)]
    pub unknown: Vec<(String, String)>,
}

/// Renews many leases at once.
#[utoipa::path(post, path = "/v1/heartbeats", tag = "backends", request_body = Heartbeats,
    responses((status = 200, body = HeartbeatsHeard), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 413, body = ProblemBody),
        (status = 415, body = ProblemBody), (status = 422, body = ProblemBody)))]
pub async fn heartbeats(
    State(state): State<ApiState>,
    caller: Caller,
    Json(body): Json<Heartbeats>,
) -> Result<axum::Json<HeartbeatsHeard>, Problem> {
    if body.backends.len() > HEARTBEATS_MAX {
        return Err(Refusal::TooMany {
            what: "backends",
            limit: HEARTBEATS_MAX,
        }
        .into());
    }
    for (app, _) in &body.backends {
        caller.must_change(app)?;
    }
    let told = body.backends.len();
    let unknown = state.registry.heartbeats(body.backends).await?;
    Ok(axum::Json(HeartbeatsHeard {
        renewed: told - unknown.len(),
        unknown,
    }))
}
