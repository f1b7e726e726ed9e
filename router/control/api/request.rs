//! What a request brings: who calls, its path, its query, its conditions, its
//! body. Whatever is wrong with them is a [`Problem`].
//!
//! Owns the extraction, its limits and its messages. Never looks at what is
//! registered.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize};

use super::ApiState;
use super::problem::Problem;
use super::span::Span;
use crate::control::names;
use crate::control::staging::Condition;
use crate::control::tokens::Caller;

/// Bytes of a JSON body, and of one line of an import.
pub const BODY_MAX_BYTES: usize = 1 << 20;
/// How long a body of that size may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);

impl FromRequestParts<ApiState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Caller, Problem> {
        let Some(given) = parts.headers.get(header::AUTHORIZATION) else {
            return Err(Problem::unauthorized("send `Authorization: Bearer TOKEN`"));
        };
        let caller = state.registry.tokens().authorize(given.as_bytes());
        caller.ok_or_else(|| Problem::unauthorized("this token is not known here"))
    }
}

/// What a caller may do, as a problem if it may not.
pub trait Permitted {
    /// May change this app.
    ///
    /// # Errors
    /// 403.
    fn must_change(&self, app: &str) -> Result<(), Problem>;
    /// May read this app.
    ///
    /// # Errors
    /// 403.
    fn must_read(&self, app: &str) -> Result<(), Problem>;
    /// May read everything.
    ///
    /// # Errors
    /// 403.
    fn must_read_all(&self) -> Result<(), Problem>;
    /// Is an operator.
    ///
    /// # Errors
    /// 403.
    fn must_operate(&self) -> Result<(), Problem>;
}

impl Permitted for Caller {
    fn must_change(&self, app: &str) -> Result<(), Problem> {
        let refuse = || Problem::forbidden(format!("this token may not change app `{app}`"));
        self.may_change(app).then_some(()).ok_or_else(refuse)
    }

    fn must_read(&self, app: &str) -> Result<(), Problem> {
        let refuse = || Problem::forbidden(format!("this token may not read app `{app}`"));
        self.may_read(app).then_some(()).ok_or_else(refuse)
    }

    fn must_read_all(&self) -> Result<(), Problem> {
        let refuse =
            || Problem::forbidden("this takes a token with the scope `read` or `operator`");
        self.may_read_all().then_some(()).ok_or_else(refuse)
    }

    fn must_operate(&self) -> Result<(), Problem> {
        let refuse = || Problem::forbidden("this takes a token with the scope `operator`");
        self.is_operator().then_some(()).ok_or_else(refuse)
    }
}

/// Path parameters.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<ApiState> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &ApiState) -> Result<Self, Problem> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Path(value)),
            Err(rejection) => Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "invalid_path",
                rejection.body_text(),
            )),
        }
    }
}

/// An app's name from a path, checked.
///
/// # Errors
/// It is none.
pub fn app_name(name: String) -> Result<String, Problem> {
    names::check_app(&name).map_err(|detail| Problem::field("app", detail))?;
    Ok(name)
}

/// A backend's id from a path, checked.
///
/// # Errors
/// It is none.
pub fn backend_id(id: String) -> Result<String, Problem> {
    names::check_backend(&id).map_err(|detail| Problem::field("id", detail))?;
    Ok(id)
}

/// Query parameters; unknown ones are refused where `T` does.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Query(value)),
            Err(rejection) => {
                let detail = rejection.body_text();
                let problem =
                    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail.as_str());
                Err(match parameter_in(&detail) {
                    Some(field) => problem.with("field", field),
                    None => problem,
                })
            }
        }
    }
}

/// `?wait=active&timeout=5s`, of every change.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// `active`: answer once every edge routes by the change.
    pub wait: Option<WaitFor>,
    /// How long to wait, such as `5s` or `250ms`, at most `60s`; default `5s`.
    #[param(value_type = Option<String>)]
    pub timeout: Option<Span>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    /// Every edge routes by the change.
    Active,
}

/// The request's condition on an app: `If-Match`, `If-None-Match: *`.
#[derive(Debug)]
pub struct Conditional(pub Condition);

impl FromRequestParts<ApiState> for Conditional {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &ApiState) -> Result<Self, Problem> {
        condition(&parts.headers).map(Conditional)
    }
}

/// The condition that a request's headers set on a change.
///
/// # Errors
/// They make no sense.
pub fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let text = |name: header::HeaderName| {
        headers.get(&name).map(|value| {
            value
                .to_str()
                .map_err(|_| Problem::field(name.as_str(), format!("{name}: not ASCII")))
        })
    };
    if let Some(value) = text(header::IF_NONE_MATCH) {
        return match value?.trim() {
            "*" => Ok(Condition::Absent),
            _ => Err(Problem::field(
                "if-none-match",
                "If-None-Match: only `*` makes sense for a change",
            )),
        };
    }
    match text(header::IF_MATCH) {
        None => Ok(Condition::Always),
        Some(value) => match value?.trim() {
            "*" => Ok(Condition::Exists),
            tags => Ok(Condition::At(
                tags.split(',').filter_map(revision_of_etag).collect(),
            )),
        },
    }
}

/// The revision in a strong tag of ours; any other matches nothing.
fn revision_of_etag(tag: &str) -> Option<u64> {
    tag.trim()
        .strip_prefix('"')?
        .strip_suffix('"')?
        .parse()
        .ok()
}

/// Whether `If-None-Match` of a read names this revision (weakly).
pub fn is_known(headers: &HeaderMap, revision: u64) -> bool {
    let Some(Ok(tags)) = headers
        .get(header::IF_NONE_MATCH)
        .map(|value| value.to_str())
    else {
        return false;
    };
    tags.split(',')
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == "*" || revision_of_etag(tag) == Some(revision))
}

/// A JSON body.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<ApiState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &ApiState) -> Result<Self, Problem> {
        must_be(request.headers(), "application/json")?;
        let bytes = whole_body(request.into_body()).await?;
        parse(&bytes).map(Json)
    }
}

/// Refuses a body that says it is something else; one that says nothing is
/// taken at its word.
///
/// # Errors
/// 415.
pub fn must_be(headers: &HeaderMap, expected: &'static str) -> Result<(), Problem> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let essence = given
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if essence.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("expected Content-Type: {expected}"),
    )
    .with("expected", expected))
}

/// A body of JSON, read whole.
///
/// # Errors
/// It is too large, too slow, or broken off.
pub async fn whole_body(body: Body) -> Result<Bytes, Problem> {
    // Said beforehand, it need not be waited for.
    if body.size_hint().lower() > BODY_MAX_BYTES as u64 {
        return Err(too_large_body());
    }
    match tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, BODY_MAX_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let too_large = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("length limit"));
            Err(if too_large {
                too_large_body()
            } else {
                Problem::new(
                    StatusCode::BAD_REQUEST,
                    "broken_body",
                    "the body did not arrive whole",
                )
            })
        }
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            format!(
                "the body did not arrive within {} s",
                BODY_TIMEOUT.as_secs()
            ),
        )),
    }
}

/// 413.
pub fn too_large_body() -> Problem {
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "body_too_large",
        format!("at most {BODY_MAX_BYTES} bytes"),
    )
    .with("limit", BODY_MAX_BYTES)
}

/// A value that must be written as a JSON object: serde takes an array for a
/// struct too, by position, which nobody means.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> de::Visitor<'de> for Entries<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
                T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

/// Parses a JSON object; the problem names the field and the place.
///
/// # Errors
/// 400.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let parent = error.path().to_string();
        json_problem(&parent, error.inner())
    })?;
    reader.end().map_err(|error| json_problem(".", &error))?;
    Ok(value)
}

fn json_problem(path: &str, error: &serde_json::Error) -> Problem {
    let detail = error.to_string();
    let path = if path == "." { "" } else { path };
    let unknown = detail.starts_with("unknown field");
    let (code, field) = match named_in(&detail) {
        _ if !error.is_data() => ("invalid_json", None),
        Some(name) if unknown || detail.starts_with("missing field") => {
            let nested = path.rsplit('.').next() != Some(name) && !path.is_empty();
            let field = if nested {
                format!("{path}.{name}")
            } else if path.is_empty() {
                name.to_owned()
            } else {
                path.to_owned()
            };
            (
                if unknown {
                    "unknown_field"
                } else {
                    "missing_field"
                },
                Some(field),
            )
        }
        _ => ("invalid_field", (!path.is_empty()).then(|| path.to_owned())),
    };
    let detail = match &field {
        Some(field) => format!("{field}: {detail}"),
        None => detail,
    };
    let problem = Problem::new(StatusCode::BAD_REQUEST, code, detail)
        .with("line", error.line())
        .with("column", error.column());
    match field {
        Some(field) => problem.with("field", field),
        None => problem,
    }
}

/// The parameter that a refusal of a query is about: axum writes
/// `…query string: NAME: what is wrong`.
fn parameter_in(detail: &str) -> Option<&str> {
    let (_, said) = detail.split_once("query string: ")?;
    let (name, _) = said.split_once(": ")?;
    (!name.is_empty() && !name.contains(' ')).then_some(name)
}

/// The first name in backticks.
fn named_in(detail: &str) -> Option<&str> {
    detail.split('`').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_read_as_revisions() {
        let with = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            condition(&headers)
        };
        assert_eq!(condition(&HeaderMap::new()).unwrap(), Condition::Always);
        assert_eq!(with(header::IF_MATCH, "*").unwrap(), Condition::Exists);
        assert_eq!(
            with(header::IF_MATCH, "\"7\", \"9\"").unwrap(),
            Condition::At(vec![7, 9])
        );
        assert_eq!(
            with(header::IF_MATCH, "W/\"7\"").unwrap(),
            Condition::At(vec![])
        );
        assert_eq!(
            with(header::IF_MATCH, "rubbish").unwrap(),
            Condition::At(vec![])
        );
        assert_eq!(with(header::IF_NONE_MATCH, "*").unwrap(), Condition::Absent);
        assert!(with(header::IF_NONE_MATCH, "\"7\"").is_err());
    }
}
