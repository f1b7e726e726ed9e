//! The registration API: CONTRACT's `/v1`, over HTTP/1.1 and JSON.
//!
//! Owns the routes, the shapes that pass over them and what each error looks
//! like. Changes nothing itself: every change goes through
//! [`Registry::change`](super::registry::Registry::change).
//!
//! A request goes: route → who calls ([`request`]) → may it → is it well
//! formed ([`shapes`]) → the registry → answer (`answer`) or [`problem`].

pub mod answer;
mod apps;
mod backends;
mod bulk;
mod domains;
mod openapi;
pub mod problem;
pub mod request;
pub mod shapes;
pub mod span;
#[cfg(test)]
mod tests;
mod tokens;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use tokio::sync::watch as channel;
use tower_http::catch_panic::CatchPanicLayer;

use super::events::Events;
use super::fleet::Fleet;
use super::registry::Registry;
use problem::Problem;

/// What the routes work on.
#[derive(Clone, Debug)]
pub struct ApiState {
    /// What is registered.
    pub registry: Arc<Registry>,
    /// Who routes by it.
    pub fleet: Arc<Fleet>,
    /// What happened.
    pub events: Arc<Events>,
    /// True once control stops: long answers end.
    pub stopping: channel::Receiver<bool>,
}

/// Every route.
pub fn router(state: ApiState) -> Router {
    Router::new()
        .route("/healthz", get(openapi::healthz))
        .route("/openapi.json", get(openapi::document))
        .route("/v1/apps", get(apps::list))
        .route(
            "/v1/apps/{app}",
            put(apps::put).get(apps::get).delete(apps::delete),
        )
        .route(
            "/v1/apps/{app}/domains/{*host}",
            put(domains::claim).delete(domains::release),
        )
        .route(
            "/v1/apps/{app}/backends/{id}",
            put(backends::put)
                .get(backends::get)
                .delete(backends::delete),
        )
        .route(
            "/v1/apps/{app}/backends/{id}/heartbeat",
            post(backends::heartbeat),
        )
        .route("/v1/heartbeats", post(backends::heartbeats))
        .route("/v1/import", post(bulk::import))
        .route("/v1/export", get(bulk::export))
        .route("/v1/watch", get(watch::watch))
        .route("/v1/tokens", post(tokens::issue).get(tokens::list))
        .route("/v1/tokens/{id}", delete(tokens::withdraw))
        .fallback(async || Problem::no_route())
        .method_not_allowed_fallback(async || Problem::method())
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(state)
}

/// A panic is a bug of ours and nothing of the caller's.
#[expect(clippy::needless_pass_by_value, reason = "the layer's signature")]
pub(super) fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or(panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!("a handler panicked: {}", said.unwrap_or("no reason given"));
    Problem::internal().into_response()
}
