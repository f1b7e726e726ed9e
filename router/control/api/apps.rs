//! `/v1/apps`: create or replace, read, remove, list.

// utoipa repeats the types of arguments with their whole path.
#![allow(unused_qualifications)]

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::ApiState;
use super::answer::{changed, etag};
use super::problem::{Problem, ProblemBody};
use super::request::{Conditional, Json, Path, Permitted, Query, Wait, app_name, is_known};
use super::shapes::{App, AppBody};
use crate::control::tokens::Caller;

/// Apps of one page unless asked for fewer or more.
const PAGE: usize = 100;
/// Apps of one page at most.
const PAGE_MAX: usize = 1_000;

/// Creates an app, or replaces its domains and policy. Its backends stay. The
/// same again changes nothing and makes no revision.
#[utoipa::path(put, path = "/v1/apps/{app}", tag = "apps",
    params(("app" = String, Path, description = "`[a-z][a-z0-9-]{0,62}`"),
        ("If-Match" = Option<String>, Header, description = "only if the app is at this ETag; `*`: only if it exists"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if it does not exist"), Wait),
    request_body = AppBody,
    responses((status = 201, body = App), (status = 200, body = App),
        (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 409, description = "another app holds a host", body = ProblemBody),
        (status = 412, body = ProblemBody), (status = 413, body = ProblemBody), (status = 415, body = ProblemBody),
        (status = 422, body = ProblemBody), (status = 504, body = ProblemBody), (status = 507, body = ProblemBody)))]
pub async fn put(
    State(state): State<ApiState>,
    caller: Caller,
    Path(app): Path<String>,
    Query(wait): Query<Wait>,
    Conditional(condition): Conditional,
    Json(body): Json<AppBody>,
) -> Result<Response, Problem> {
    let app = app_name(app)?;
    caller.must_change(&app)?;
    let patience = wait.patience()?;
    let spec = body.spec(app)?;
    let outcome = state
        .registry
        .change(move |staging| staging.put_app(&spec, &condition))
        .await?;
    let view = outcome.record.clone().map(App::of);
    changed(&state, patience, &outcome, &view).await
}

/// Reads an app.
#[utoipa::path(get, path = "/v1/apps/{app}", tag = "apps",
    params(("app" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "304 if the app is at this ETag")),
    responses((status = 200, body = App), (status = 304, description = "as known"),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody), (status = 404, body = ProblemBody)))]
pub async fn get(
    State(state): State<ApiState>,
    caller: Caller,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let app = app_name(app)?;
    caller.must_read(&app)?;
    let record = state
        .registry
        .app(&app)
        .ok_or(crate::control::refusal::Refusal::NoApp(app))?;
    let tag = [(header::ETAG, etag(record.revision))];
    if is_known(&headers, record.revision) {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    Ok((tag, axum::Json(App::of(record))).into_response())
}

/// The answer to a removal.
#[derive(Debug, Serialize, ToSchema)]
pub struct Removed {
    /// The revision without it.
    pub revision: u64,
    /// The app.
    pub app: String,
}

/// Removes an app, with its claims and its backends.
#[utoipa::path(delete, path = "/v1/apps/{app}", tag = "apps",
    params(("app" = String, Path),
        ("If-Match" = Option<String>, Header, description = "only if the app is at this ETag"), Wait),
    responses((status = 200, body = Removed), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody),
        (status = 404, body = ProblemBody), (status = 412, body = ProblemBody), (status = 504, body = ProblemBody)))]
pub async fn delete(
    State(state): State<ApiState>,
    caller: Caller,
    Path(app): Path<String>,
    Query(wait): Query<Wait>,
    Conditional(condition): Conditional,
) -> Result<Response, Problem> {
    let app = app_name(app)?;
    caller.must_change(&app)?;
    let patience = wait.patience()?;
    let name = app.clone();
    let outcome = state
        .registry
        .change(move |staging| staging.delete_app(&name, &condition))
        .await?;
    changed(
        &state,
        patience,
        &outcome,
        &Removed {
            revision: outcome.revision,
            app,
        },
    )
    .await
}

/// Which page of the apps.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Apps after this name; a page's `next`.
    pub after: Option<String>,
    /// At most this many; 1 to 1,000, by default 100.
    pub limit: Option<usize>,
}

/// A page of apps, by name.
#[derive(Debug, Serialize, ToSchema)]
pub struct AppPage {
    /// The registry's revision.
    pub revision: u64,
    /// The apps.
    pub apps: Vec<App>,
    /// `after` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Lists apps by name, a page at a time.
#[utoipa::path(get, path = "/v1/apps", tag = "apps", params(Page),
    responses((status = 200, body = AppPage), (status = 400, body = ProblemBody),
        (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<ApiState>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<axum::Json<AppPage>, Problem> {
    caller.must_read_all()?;
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::field(
            "limit",
            format!("limit: expected 1 to {PAGE_MAX}"),
        ));
    }
    let revision = state.registry.revision();
    let mut records = state
        .registry
        .page(page.after.as_deref().unwrap_or_default(), limit + 1);
    let more = records.len() > limit;
    records.truncate(limit);
    let next = if more {
        records.last().map(|record| record.name.clone())
    } else {
        None
    };
    Ok(axum::Json(AppPage {
        revision,
        apps: records.into_iter().map(App::of).collect(),
        next,
    }))
}
