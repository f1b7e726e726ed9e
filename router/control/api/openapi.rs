//! `/openapi.json` and `/healthz`, for anyone.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::ApiState;
use super::problem::Problem;

/// The document, from the handlers themselves.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Portico registration API",
        description = "Apps register their hosts and instances; every change answers with the revision it made, \
            durable. Errors are `application/problem+json` with a `code`.",
    ),
    paths(
        super::apps::put, super::apps::get, super::apps::delete, super::apps::list,
        super::domains::claim, super::domains::release,
        super::backends::put, super::backends::get, super::backends::delete,
        super::backends::heartbeat, super::backends::heartbeats,
        super::bulk::import, super::bulk::export, super::watch::watch,
        super::tokens::issue, super::tokens::list, super::tokens::withdraw,
        healthz, document,
    ),
    modifiers(&Bearer),
    security(("bearer" = []))
)]
struct Api;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token with the scope `operator`, `read` or `app:NAME`.",
            ))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(bearer));
    }
}

static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    Api::openapi()
        .to_json()
        .expect("the document must be JSON: it is made of constants")
});

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", security(()),
    responses((status = 200, description = "OpenAPI 3.1")))]
pub async fn document() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        DOCUMENT.as_str(),
    )
        .into_response()
}

/// Whether the API can take changes.
#[utoipa::path(get, path = "/healthz", tag = "service", security(()),
    responses((status = 200, description = "it can"), (status = 503, description = "it cannot")))]
pub async fn healthz(State(state): State<ApiState>) -> Response {
    if !state.registry.is_writing() {
        let detail = "the store's thread has ended; control is about to restart";
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", detail)
            .into_response();
    }
    axum::Json(json!({ "status": "ok", "revision": state.registry.revision() })).into_response()
}
