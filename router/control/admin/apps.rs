//! `/apps` and `/apps/{app}`: what is registered, beside what edges see of it.

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::backend;
use super::numbers::Numbers;
use crate::control::AdminState;
use crate::control::api::problem::Problem;
use crate::control::api::request::Query;
use crate::control::api::shapes::App;
use crate::control::refusal::Refusal;
use crate::feed::messages::{AppRecord, AppReport, BackendRecord, Standing};
use crate::observe::Code;

/// Apps of a page, if nothing is said, and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 1_000;

/// `?after=&limit=`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

/// `GET /apps`: registered apps in order of name; `next` is the following
/// page's `after`, absent on the last.
pub(super) async fn list(
    State(state): State<AdminState>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let limit = page.limit.unwrap_or(PAGE);
    if !(1..=PAGE_MAX).contains(&limit) {
        return Err(Problem::field(
            "limit",
            format!("limit: expected 1 to {PAGE_MAX}"),
        ));
    }
    let mut records = state.registry.page(&page.after, limit + 1);
    let more = records.len() > limit;
    records.truncate(limit);
    let mut answer = Map::new();
    if let Some(last) = records.last().filter(|_| more) {
        answer.insert("next".into(), json!(last.name));
    }
    let apps: Vec<Value> = records.iter().map(summary).collect();
    answer.insert("apps".into(), json!(apps));
    answer.insert("total".into(), json!(state.registry.counts().apps));
    Ok(Json(Value::Object(answer)))
}

fn summary(record: &AppRecord) -> Value {
    let active =
        |backend: &&BackendRecord| backend.standing() == Standing::Active && !backend.ejected;
    json!({
        "app": record.name,
        "domains": record.domains,
        "backends": record.backends.len(),
        "active_backends": record.backends.iter().filter(active).count(),
        "revision": record.revision,
    })
}

/// `GET /apps/{app}`: what is registered, and what the edges see of it.
pub(super) async fn show(
    State(state): State<AdminState>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let record = state
        .registry
        .app(&name)
        .ok_or_else(|| Refusal::NoApp(name.clone()))?;
    let reports = state.fleet.collect(&name, 1).await;
    let edges_asked = state.fleet.edges().len();
    let numbers = Numbers::merge(&reports, usize::MAX);
    let seen = numbers
        .apps
        .into_iter()
        .find(|app| app.app == name)
        .unwrap_or_default();
    Ok(Json(view(&record, &seen, reports.len(), edges_asked)))
}

fn view(record: &AppRecord, seen: &AppReport, answered: usize, asked: usize) -> Value {
    let backends: Vec<Value> = record
        .backends
        .iter()
        .map(|backend| {
            let live = seen.backends.iter().find(|live| live.id == backend.id);
            backend::view(backend, live)
        })
        .collect();
    json!({
        "app": record.name,
        "revision": record.revision,
        "domains": record.domains,
        "policy": App::of(record.clone()).policy,
        "traffic": traffic(seen),
        "backends": backends,
        "edges": { "asked": asked, "answered": answered },
    })
}

/// An app's counters since its edges started.
pub(super) fn traffic(seen: &AppReport) -> Value {
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"]
        .into_iter()
        .zip(&seen.responses);
    let responses: Map<String, Value> = classes
        .map(|(class, count)| (class.to_owned(), json!(count)))
        .collect();
    let codes = seen.codes.chunks_exact(2).filter_map(|pair| {
        let code = Code::ALL
            .iter()
            .find(|code| u64::from(code.number()) == pair[0])?;
        Some((code.name().to_owned(), json!(pair[1])))
    });
    json!({
        "requests": seen.requests(),
        "responses": responses,
        "codes": codes.collect::<Map<String, Value>>(),
        "sent_bytes": seen.bytes,
        "in_flight": seen.in_flight,
        "queued": seen.queued,
        "duration_seconds": seen.total_us as f64 / 1e6,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::messages::{BackendReport, PolicyRecord};

    #[test]
    fn an_app_shows_what_is_registered_beside_what_is_seen() {
        let record = AppRecord {
            name: "shop".into(),
            domains: vec!["a.example".into()],
            policy: Some(PolicyRecord {
                retries: Some(0),
                ..PolicyRecord::default()
            }),
            backends: vec![
                BackendRecord {
                    id: "web.1".into(),
                    address: "127.0.0.1:9001".into(),
                    weight: 100,
                    lease_seconds: 30,
                    ..BackendRecord::default()
                },
                BackendRecord {
                    id: "web.2".into(),
                    standing: Standing::Draining.into(),
                    ..BackendRecord::default()
                },
            ],
            revision: 9,
        };
        let seen = AppReport {
            app: "shop".into(),
            responses: vec![0, 5, 0, 0, 1],
            codes: vec![12, 1],
            backends: vec![BackendReport {
                id: "web.1".into(),
                in_flight: 2,
                requests: 6,
                failures: 1,
                ..BackendReport::default()
            }],
            ..AppReport::default()
        };
        let view = view(&record, &seen, 1, 2);
        assert_eq!(view["policy"], json!({"retries": 0}));
        assert_eq!(view["traffic"]["requests"], 6);
        assert_eq!(view["traffic"]["codes"], json!({"H12": 1}));
        assert_eq!(view["backends"][0]["in_flight"], 2);
        assert_eq!(view["backends"][0]["lease_seconds"], 30);
        assert_eq!(view["backends"][1]["standing"], "draining");
        assert_eq!(view["backends"][1]["lease_seconds"], Value::Null);
        assert_eq!(view["edges"], json!({"asked": 2, "answered": 1}));
    }
}
