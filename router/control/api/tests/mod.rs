//! The API in process: every status, against a store on disk.

mod access;
mod bulk;
mod policies;
mod refusals;
mod registration;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt;

use super::{ApiState, panicked, request, router};
use crate::control::boot;
use crate::control::events::Events;
use crate::control::fleet::Fleet;
use crate::control::registry::Registry;
use crate::control::tokens::Tokens;
use crate::feed::messages::EdgeHello;

const OPERATOR: &str = "operator-token-of-the-tests";

/// An API over a store of its own.
struct Api {
    router: Router,
    state: ApiState,
    stop: watch::Sender<bool>,
    dir: TempDir,
}

/// An answer, read whole.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    fn etag(&self) -> String {
        self.headers[header::ETAG].to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn is(self, status: u16) -> Answer {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        self
    }

    /// A problem with this status and code, in the one shape all have.
    #[track_caller]
    fn problem(self, status: u16, code: &str) -> Value {
        let answer = self.is(status);
        assert_eq!(
            answer.headers[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let body = answer.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status);
        assert!(
            body["title"].is_string() && body["detail"].is_string() && body["type"].is_string()
        );
        body
    }
}

impl Api {
    fn new() -> Api {
        Api::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: TempDir) -> Api {
        let events = Arc::<Events>::default();
        let (store, mut contents) = boot::open(dir.path(), &events, |_| None).unwrap();
        let tokens = Arc::new(Tokens::new(OPERATOR, std::mem::take(&mut contents.tokens)));
        let (registry, _writer) = Registry::start(store, contents, tokens).unwrap();
        let fleet = Arc::new(Fleet::new(events.clone(), Arc::default()));
        let (stop, stopping) = watch::channel(false);
        let state = ApiState {
            registry,
            fleet,
            events,
            stopping,
        };
        Api {
            router: router(state.clone()),
            state,
            stop,
            dir,
        }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        }
    }

    async fn call_with(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.header("authorization", format!("Bearer {OPERATOR}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = match body {
            None => Body::empty(),
            Some(value) => {
                request = request.header("content-type", "application/json");
                Body::from(value.to_string())
            }
        };
        self.send(request.body(body).unwrap()).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.call_with(method, path, body, &[]).await
    }

    async fn as_token(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        self.call_with(method, path, body, &[("authorization", &bearer)])
            .await
    }

    async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Answer {
        self.call("PUT", path, Some(body)).await
    }

    async fn import(&self, lines: &str) -> Value {
        let request = Request::post("/v1/import")
            .header("authorization", format!("Bearer {OPERATOR}"))
            .header("content-type", "application/x-ndjson");
        self.send(request.body(Body::from(lines.to_owned())).unwrap())
            .await
            .is(200)
            .json()
    }

    async fn token(&self, scopes: Value) -> String {
        let issued = self
            .call("POST", "/v1/tokens", Some(json!({ "scopes": scopes })))
            .await
            .is(201)
            .json();
        issued["token"].as_str().unwrap().to_owned()
    }

    /// As after a restart of control.
    async fn restart(self) -> Api {
        let Api {
            router,
            state,
            stop,
            dir,
        } = self;
        drop((router, stop));
        state.registry.close().await;
        Api::at(dir)
    }
}
