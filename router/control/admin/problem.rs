//! What the admin port answers when it cannot do what was asked: a problem
//! document (RFC 9457) with a stable `code`.

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::control::refusal::Refusal;

/// A refused request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    more: Map<String, Value>,
}

impl Problem {
    /// `code` is snake case and stays; `detail` is one sentence for a person.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            code,
            detail: detail.into(),
            more: Map::new(),
        }
    }

    /// No such thing.
    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// A parameter that makes no sense.
    pub fn parameter(name: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad_parameter", detail).with("parameter", name)
    }

    /// With one more member.
    pub fn with(mut self, name: &str, value: impl Serialize) -> Problem {
        if let Ok(value) = serde_json::to_value(value) {
            self.more.insert(name.to_owned(), value);
        }
        self
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let (status, code) = match &refusal {
            Refusal::NoApp(_)
            | Refusal::NoBackend { .. }
            | Refusal::NoDomain { .. }
            | Refusal::NoToken(_) => (StatusCode::NOT_FOUND, "not_found"),
            Refusal::HostTaken { .. } => (StatusCode::CONFLICT, "host_taken"),
            Refusal::Lost { .. } => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Refusal::TooMany { .. } => (StatusCode::BAD_REQUEST, "too_many"),
            Refusal::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store"),
            Refusal::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Problem::new(status, code, refusal.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = Map::new();
        body.insert("type".into(), "about:blank".into());
        body.insert(
            "title".into(),
            self.status.canonical_reason().unwrap_or_default().into(),
        );
        body.insert("status".into(), self.status.as_u16().into());
        body.insert("code".into(), self.code.into());
        body.insert("detail".into(), self.detail.into());
        body.extend(self.more);
        let mut response = (self.status, Value::Object(body).to_string()).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The query's parameters; those that do not fit are refused as a problem.
#[derive(Clone, Debug)]
pub(super) struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(params)) => Ok(Params(params)),
            Err(rejected) => {
                let detail = rejected.body_text();
                Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "bad_parameter",
                    detail,
                ))
            }
        }
    }
}
