//! The admin port: what the router is doing, and a few orders to it.
//!
//! Owns the routes, who may ask (`guard`), and how the numbers of all edges
//! become one page (`numbers`, `exposition`). Lives in control, apart from
//! the data plane, so that a saturated edge cannot hide it. Never handles a
//! request of an app's client, and holds nothing that would be missed when
//! control restarts.
//!
//! | route | shows |
//! |---|---|
//! | `/` | the page, for people |
//! | `/healthz`, `/readyz` | control works; every edge serves its table |
//! | `/metrics` | Prometheus text |
//! | `/overview` | the page's numbers as JSON |
//! | `/processes` | the supervisor's table, with obituaries |
//! | `/memory` | what each process's memory goes to |
//! | `/apps`, `/apps/{app}` | what is registered, and what edges see of it |
//! | `/events` | server-sent events |
//! | `/config` | settings in force |
//! | `POST /apps/{app}/backends/{id}/drain` | takes a backend out of rotation, then removes it |
//! | `POST /table/confirm` | lets a table go out that lacks more than was removed |
//! | `POST /apps/{app}/backends/{id}/eject` | takes a backend out of rotation, until it is let back in |
//! | `POST /apps/{app}/backends/{id}/readmit` | lets it back in, whoever took it out |
//! | `/limits`, `/limits/{name}` | named limits; `PUT` and `DELETE` change them |
//! | `POST /upgrade` | replaces every process by the binary now on disk |

mod apps;
mod backend;
mod events;
mod exposition;
mod guard;
mod health;
mod limits;
mod memory;
mod numbers;
mod orders;
mod overview;
mod own;
mod procfs;
mod scrape;
mod shrink;
pub(super) mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::FromRef;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware;
use axum::response::Html;
use axum::routing::{get, post};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::set_header::SetResponseHeaderLayer;
use tower_http::timeout::TimeoutLayer;

use super::AdminState;
use super::api;
use super::api::problem::Problem;
use memory::EdgeMemory;
use scrape::Scrape;

/// The page: one file, nothing fetched from elsewhere.
const PAGE: &str = include_str!("page.html");
/// Nothing but the page's own script and style may run, and nobody may frame it.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; \
    base-uri 'none'; form-action 'none'";
/// The answer's head must be there by then (a stream may go on).
const PATIENCE: Duration = Duration::from_secs(10);

/// What every handler has at hand.
#[derive(Clone, Debug)]
struct Admin {
    state: AdminState,
    scrape: Arc<Scrape>,
    memory: Arc<EdgeMemory>,
}

impl FromRef<Admin> for AdminState {
    fn from_ref(admin: &Admin) -> AdminState {
        admin.state.clone()
    }
}

/// Every route of the admin port.
pub fn router(state: AdminState) -> Router {
    let guard = middleware::from_fn_with_state(state.clone(), guard::guard);
    let admin = Admin {
        state,
        scrape: Arc::default(),
        memory: Arc::default(),
    };
    let no_store = SetResponseHeaderLayer::if_not_present(
        header::CACHE_CONTROL,
        HeaderValue::from_static("no-store"),
    );
    let no_sniff = SetResponseHeaderLayer::if_not_present(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    let layers = ServiceBuilder::new()
        .layer(no_store)
        .layer(no_sniff)
        .layer(CatchPanicLayer::custom(api::panicked))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            PATIENCE,
        ))
        .layer(guard);
    Router::new()
        .route("/", get(page))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(own::metrics))
        .route("/overview", get(overview::overview))
        .route("/processes", get(health::processes))
        .route("/memory", get(memory::show))
        .route("/config", get(health::config))
        .route("/table/confirm", post(shrink::confirm))
        .route("/events", get(events::events))
        .route("/apps", get(apps::list))
        .route("/apps/{app}", get(apps::show))
        .route("/apps/{app}/backends/{id}/drain", post(orders::drain))
        .route("/apps/{app}/backends/{id}/eject", post(orders::eject))
        .route("/apps/{app}/backends/{id}/readmit", post(orders::readmit))
        .route("/limits", get(limits::list))
        .route(
            "/limits/{name}",
            get(limits::show).put(limits::put).delete(limits::delete),
        )
        .route("/upgrade", post(upgrade::upgrade))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(layers)
        .with_state(admin)
}

async fn page() -> ([(header::HeaderName, &'static str); 1], Html<&'static str>) {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE))
}

async fn nothing_here(uri: Uri) -> Problem {
    let detail = format!("the admin port has no {}", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

#[cfg(test)]
mod tests;
