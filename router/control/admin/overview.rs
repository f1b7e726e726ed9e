//! `/overview`: the router's state in one JSON document, for the page and for
//! `portico top`. Counters are totals since the edges started: whoever reads
//! twice has rates, and latencies of the time between.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::numbers::{Numbers, Observed};
use super::scrape::Scraped;
use super::{Admin, apps, backend, events, health, limits, shrink};
use crate::control::AdminState;
use crate::control::propagation::Spread;
use crate::observe::histogram::{BOUNDS, bound};
use crate::observe::metrics::{self, CODES};
use crate::observe::{Counter, Gauge, Histogram};

/// Apps listed.
const APPS: usize = 20;
/// Events listed.
const EVENTS: usize = 12;
/// Backends listed that are not well.
const UNWELL: usize = 50;

/// `GET /overview`
pub(super) async fn overview(State(admin): State<Admin>) -> Json<Value> {
    let scraped = admin.scrape.numbers(&admin.state.fleet).await;
    let state = &admin.state;
    let counts = state.registry.counts();
    let events = state.events.latest(EVENTS);
    Json(json!({
        "at_ms": scraped.at_ms,
        "version": env!("CARGO_PKG_VERSION"),
        "revision": state.registry.revision(),
        "active_revision": state.fleet.active_revision(),
        "ready": state.fleet.is_serving(),
        "doubted": shrink::doubted(state),
        "registered": {
            "apps": counts.apps,
            "domains": counts.domains,
            "backends": counts.backends,
        },
        "edges": edges(state, &scraped),
        "changes": changes(state),
        "processes": health::process_list(state, &scraped),
        "traffic": traffic(&scraped.numbers),
        "latency_bounds_seconds": bounds(),
        "latency": {
            "total": histogram(&scraped.numbers.observed(Histogram::Total)),
            "first_byte": histogram(&scraped.numbers.observed(Histogram::FirstByte)),
            "connect": histogram(&scraped.numbers.observed(Histogram::Connect)),
            "queue": histogram(&scraped.numbers.observed(Histogram::QueueWait)),
        },
        "apps": busiest(&scraped.numbers),
        "unwell": unwell(state, &scraped.numbers),
        "limits": limits::counted(state, &scraped.numbers),
        "events": events.iter().rev().map(events::view).collect::<Vec<_>>(),
    }))
}

/// How many edges are connected, by what they do.
fn edges(state: &AdminState, scraped: &Scraped) -> Value {
    let mut edges = json!({ "connected": scraped.edges, "answered": scraped.answered });
    for edge in state.fleet.edges() {
        let count = edges[edge.state()].as_u64().unwrap_or(0);
        edges[edge.state()] = json!(count + 1);
    }
    edges
}

/// How long changes took in the last minutes: until they were durable, and from
/// then until every serving edge routed by them.
fn changes(state: &AdminState) -> Value {
    let propagation = state.registry.propagation();
    let view = |spread: &Spread| {
        json!({
            "count": spread.recent().iter().sum::<u64>(),
            "p50_seconds": spread.recent_quantile(0.5),
            "p99_seconds": spread.recent_quantile(0.99),
        })
    };
    json!({
        "commit": view(&propagation.commits()),
        "propagation": view(&propagation.activations()),
    })
}

fn traffic(numbers: &Numbers) -> Value {
    let by_label = |row| {
        let counts = numbers.by_label(row).into_iter();
        counts
            .map(|(label, count)| (label, json!(count)))
            .collect::<Map<String, Value>>()
    };
    let count = |counter: Counter| json!(numbers.total(counter.row()));
    let gauge = |gauge: Gauge| json!(numbers.total(gauge.row()));
    json!({
        "requests": by_label(Counter::Responses2xx.row()),
        "codes": by_label(&CODES),
        "retries": by_label(Counter::RetriedConnect.row()),
        "connect_failures": by_label(Counter::ConnectRefused.row()),
        "checkouts": by_label(Counter::BackendReused.row()),
        "accepted": count(Counter::ConnectionsAccepted),
        "received_bytes": count(Counter::ClientReceivedBytes),
        "sent_bytes": count(Counter::ClientSentBytes),
        "connections": gauge(Gauge::ConnectionsOpen),
        "in_flight": gauge(Gauge::InFlight),
        "queued": gauge(Gauge::Queued),
        "gated": gauge(Gauge::Gated),
        "saturated_threads": gauge(Gauge::ThreadsSaturated),
        "shed": by_label(Counter::ShedProcessor.row()),
        "idle_backend_connections": gauge(Gauge::BackendIdleConnections),
        "upgrades": gauge(Gauge::UpgradesOpen),
        "log_lines_dropped": metrics::row("portico_access_log_dropped_total")
            .map(|row| numbers.total(row)),
    })
}

fn bounds() -> Vec<f64> {
    (0..BOUNDS)
        .filter_map(bound)
        .map(|micros| micros as f64 / 1e6)
        .collect()
}

fn histogram(observed: &Observed) -> Value {
    json!({ "buckets": observed.buckets, "sum_seconds": observed.sum })
}

/// Backends that are out of rotation, at rest or not yet back with their full
/// share, of apps with traffic; those that get nothing first. One that is well
/// on some edges counts as it is on the others.
fn unwell(state: &AdminState, numbers: &Numbers) -> Value {
    let mut seen: Vec<_> = numbers.unwell.iter().collect();
    seen.sort_by_key(|(_, live)| live.share());
    let views = seen
        .into_iter()
        .take(UNWELL)
        .filter_map(|((app, id), live)| {
            let record = state.registry.app(app)?;
            let registered = record.backends.iter().find(|backend| backend.id == *id)?;
            let mut view = backend::view(registered, Some(live));
            view["app"] = json!(app);
            Some(view)
        });
    json!({ "total": numbers.unwell_total, "backends": views.collect::<Vec<_>>() })
}

fn busiest(numbers: &Numbers) -> Vec<Value> {
    let named = numbers.apps.iter().filter(|app| !app.app.is_empty());
    let views = named.take(APPS).map(|app| {
        let mut view = apps::traffic(app);
        view["app"] = json!(app.app);
        view
    });
    views.collect()
}
