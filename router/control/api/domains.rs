//! `/v1/apps/{app}/domains`: claim and release hosts.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::ApiState;
use super::answer::changed;
use super::problem::{Problem, ProblemBody};
use super::request::{Conditional, Path, Permitted, Query, Wait, app_name};
use crate::control::names;
use crate::control::tokens::Caller;

/// The answer to a claim or a release.
#[derive(Debug, Serialize, ToSchema)]
pub struct Domain {
    /// The revision it is true from.
    pub revision: u64,
    /// The app.
    pub app: String,
    /// The host pattern, in normal form.
    pub domain: String,
}

/// Claims a host for an app.
#[utoipa::path(put, path = "/v1/apps/{app}/domains/{host}", tag = "domains",
    params(("app" = String, Path), ("host" = String, Path, description = "host, `*.host`, either with a `/path`"),
        ("If-Match" = Option<String>, Header, description = "only if the app is at this ETag"), Wait),
    responses((status = 201, body = Domain), (status = 200, body = Domain), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
        (status = 409, description = "another app holds it", body = ProblemBody), (status = 412, body = ProblemBody),
        (status = 504, body = ProblemBody)))]
pub async fn claim(
    State(state): State<ApiState>,
    caller: Caller,
    Path((app, host)): Path<(String, String)>,
    Query(wait): Query<Wait>,
    Conditional(condition): Conditional,
) -> Result<Response, Problem> {
    let (app, domain) = checked(app, &host, &caller)?;
    let patience = wait.patience()?;
    let (name, host) = (app.clone(), domain.clone());
    let outcome = state
        .registry
        .change(move |staging| staging.claim(&name, &host, &condition))
        .await?;
    changed(
        &state,
        patience,
        &outcome,
        &Domain {
            revision: outcome.revision,
            app,
            domain,
        },
    )
    .await
}

/// Gives a host up.
#[utoipa::path(delete, path = "/v1/apps/{app}/domains/{host}", tag = "domains",
    params(("app" = String, Path), ("host" = String, Path),
        ("If-Match" = Option<String>, Header, description = "only if the app is at this ETag"), Wait),
    responses((status = 200, body = Domain), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody),
        (status = 403, body = ProblemBody), (status = 404, body = ProblemBody), (status = 412, body = ProblemBody),
        (status = 504, body = ProblemBody)))]
pub async fn release(
    State(state): State<ApiState>,
    caller: Caller,
    Path((app, host)): Path<(String, String)>,
    Query(wait): Query<Wait>,
    Conditional(condition): Conditional,
) -> Result<Response, Problem> {
    let (app, domain) = checked(app, &host, &caller)?;
    let patience = wait.patience()?;
    let (name, host) = (app.clone(), domain.clone());
    let outcome = state
        .registry
        .change(move |staging| staging.release(&name, &host, &condition))
        .await?;
    changed(
        &state,
        patience,
        &outcome,
        &Domain {
            revision: outcome.revision,
            app,
            domain,
        },
    )
    .await
}

fn checked(app: String, host: &str, caller: &Caller) -> Result<(String, String), Problem> {
    let app = app_name(app)?;
    caller.must_change(&app)?;
    let host = names::host(host).map_err(|detail| Problem::field("host", detail))?;
    Ok((app, host))
}
