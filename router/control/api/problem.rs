//! Problems: every answer that is an error (RFC 9457).
//!
//! Owns the codes, what each means over HTTP, and the one way from a
//! [`Refusal`] to an answer. Never shows a caller what is wrong inside.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::control::refusal::Refusal;

/// The body of every error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemBody {
    /// `about:blank`: the `code` says which problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// Stable, snake case.
    code: &'static str,
    /// One sentence for a person.
    detail: String,
    /// What a program may want: `field`, `line`, `column`, `holder`, `revision` …
    #[serde(flatten)]
    members: Map<String, Value>,
}

/// An error to answer with.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    members: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code and one sentence for a person.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem {
            status,
            code,
            detail: detail.into(),
            members: Map::new(),
        }
    }

    /// A value that breaks a rule, by the name of its field.
    pub fn field(field: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_field", detail).with("field", field)
    }

    /// Adds something for programs.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Problem {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// What is written of it.
    pub fn into_body(self) -> ProblemBody {
        ProblemBody {
            kind: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: self.detail,
            members: self.members,
        }
    }

    /// Its stable code.
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// Its sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The field it is about, if one.
    pub fn field_name(&self) -> Option<&str> {
        self.members.get("field").and_then(Value::as_str)
    }

    /// Where in its line it was found, if known.
    pub fn column(&self) -> Option<u64> {
        self.members.get("column").and_then(Value::as_u64)
    }

    /// No route leads there.
    pub fn no_route() -> Problem {
        Problem::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "nothing is here; see /openapi.json",
        )
    }

    /// The route knows other methods.
    pub fn method() -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not take that method; see the Allow header",
        )
    }

    /// The caller did not say who it is, or nobody of that name is known.
    pub fn unauthorized(detail: &str) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// The caller is known but may not.
    pub fn forbidden(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// Something broke in here; the log knows what.
    pub fn internal() -> Problem {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "an internal error; the router's log has the reason",
        )
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let detail = refusal.to_string();
        let new = |status, code| Problem::new(status, code, detail.as_str());
        match refusal {
            Refusal::NoApp(app) => new(StatusCode::NOT_FOUND, "app_not_found").with("app", app),
            Refusal::NoBackend { app, id } => new(StatusCode::NOT_FOUND, "backend_not_found")
                .with("app", app)
                .with("backend", id),
            Refusal::NoDomain { app, host } => new(StatusCode::NOT_FOUND, "domain_not_found")
                .with("app", app)
                .with("host", host),
            Refusal::NoToken(id) => new(StatusCode::NOT_FOUND, "token_not_found").with("id", id),
            Refusal::NoLimit(name) => {
                new(StatusCode::NOT_FOUND, "limit_not_found").with("limit", name)
            }
            Refusal::HostTaken { host, holder } => new(StatusCode::CONFLICT, "host_taken")
                .with("host", host)
                .with("holder", holder),
            Refusal::Lost { current } => {
                let problem = new(StatusCode::PRECONDITION_FAILED, "precondition_failed");
                match current {
                    Some(revision) => problem.with("revision", revision),
                    None => problem,
                }
            }
            Refusal::TooMany { what, limit } => new(StatusCode::UNPROCESSABLE_ENTITY, "too_many")
                .with("field", what)
                .with("limit", limit),
            Refusal::HastyImport {
                registered,
                dropped,
            } => new(StatusCode::CONFLICT, "hasty_import")
                .with("registered", registered)
                .with("dropped", dropped),
            Refusal::Store(failure) => {
                // The reason names paths of this machine: it is in the log.
                let (status, code, detail) = if failure.full {
                    (
                        StatusCode::INSUFFICIENT_STORAGE,
                        "store_full",
                        "the store's disk is full",
                    )
                } else {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "store_failed",
                        "the store could not be written",
                    )
                };
                Problem::new(
                    status,
                    code,
                    format!("{detail}; nothing was changed, try again later"),
                )
            }
            Refusal::Stopping => new(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let body = self.into_body();
        let text = serde_json::to_vec(&body)
            .expect("a problem must be JSON: it holds only text and numbers");
        let mut response = (status, text).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"portico\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if matches!(
            status,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::INSUFFICIENT_STORAGE
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
