//! `/openapi.json` and `/healthz`, for anyone.

use std::sync::LazyLock;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use utoipa::openapi::RefOr;
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
    components(schemas(super::bulk::Confirmation, super::request::WaitFor)),
    modifiers(&Bearer, &Whole),
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

/// Fills in what the handlers leave to the document: a description of every
/// answer, the media type of problems, and names that are there only once.
struct Whole;

impl Modify for Whole {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        for (path, item) in &mut openapi.paths.paths {
            let operations = [
                ("get", &mut item.get),
                ("put", &mut item.put),
                ("post", &mut item.post),
                ("delete", &mut item.delete),
            ];
            for (method, operation) in operations {
                let Some(operation) = operation else { continue };
                operation.operation_id = Some(operation_id(method, path));
                for (status, answer) in &mut operation.responses.responses {
                    if let RefOr::T(answer) = answer {
                        complete(status, answer);
                    }
                }
            }
        }
    }
}

/// A description for who gave none (it is required), and problems as such.
fn complete(status: &str, answer: &mut utoipa::openapi::Response) {
    let Ok(status) = status.parse::<StatusCode>() else {
        return;
    };
    if answer.description.is_empty() {
        answer.description = status.canonical_reason().unwrap_or("An answer").to_owned();
    }
    if (status.is_client_error() || status.is_server_error())
        && let Some(body) = answer.content.shift_remove("application/json")
    {
        answer
            .content
            .insert("application/problem+json".to_owned(), body);
    }
}

/// `put_app_backend` for `PUT /v1/apps/{app}/backends/{id}`: what generated
/// clients call it. A word before a parameter is one of its kind.
fn operation_id(method: &str, path: &str) -> String {
    let mut name = method.to_owned();
    let mut words = path
        .split('/')
        .filter(|word| !word.is_empty() && *word != "v1")
        .peekable();
    while let Some(word) = words.next() {
        if word.starts_with('{') {
            continue;
        }
        let is_one = words.peek().is_some_and(|next| next.starts_with('{'));
        let word = word.split('.').next().unwrap_or(word);
        name.push('_');
        name.push_str(word.strip_suffix('s').filter(|_| is_one).unwrap_or(word));
    }
    name
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_answer_is_described_and_every_operation_has_its_own_name() {
        let document: Value = serde_json::from_str(&DOCUMENT).unwrap();
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{name} is there twice");
                for (status, answer) in operation["responses"].as_object().unwrap() {
                    let at = format!("{method} {path} {status}");
                    assert_ne!(answer["description"].as_str().unwrap_or(""), "", "{at}");
                    let is_json = answer["content"].get("application/json").is_some();
                    assert!(!is_json || status.starts_with('2'), "{at}");
                }
            }
        }
        for reference in DOCUMENT.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(
                document.pointer(pointer).is_some(),
                "{pointer} is not there"
            );
        }
        for name in [
            "put_app",
            "get_apps",
            "delete_app_domain",
            "post_app_backend_heartbeat",
        ] {
            assert!(names.contains(name), "{name} is not in {names:?}");
        }
    }
}
