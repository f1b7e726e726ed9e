//! `/healthz`, `/readyz`, `/processes`, `/config`: how the router itself is.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::scrape::Scraped;
use super::{Admin, procfs};
use crate::control::AdminState;
use crate::control::api::problem::Problem;
use crate::control::fleet::EdgeStatus;
use crate::heritage::{Departed, ProcessState, ProcessStatus, Role};

/// How long an edge that serves may take to connect before that is told.
const GATHER: Duration = Duration::from_millis(500);

/// `GET /healthz`: control is alive and can store changes.
pub(super) async fn healthz(State(state): State<AdminState>) -> Response {
    if state.registry.is_writing() {
        Json(json!({"status": "ok"})).into_response()
    } else {
        let detail = "the store's writer has stopped; changes are refused";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store_stopped", detail).into_response()
    }
}

/// `GET /readyz`: every edge serves its table; else 503 with the reasons.
pub(super) async fn readyz(State(state): State<AdminState>) -> Response {
    // A control that just started knows of edges that serve before they connect.
    state.fleet.gather(GATHER).await;
    let edges = state.fleet.edges();
    let reasons = unready(&edges, &state.processes.latest());
    if reasons.is_empty() {
        let revision = state.fleet.active_revision();
        let serving = edges.iter().filter(|edge| edge.is_waited_for()).count();
        let pinned = edges.iter().filter(|edge| edge.is_pinned_serving()).count();
        return Json(json!({
            "status": "ready", "edges": serving + pinned, "pinned": pinned, "revision": revision,
        }))
        .into_response();
    }
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "not_ready",
        reasons.join(" "),
    )
    .with("reasons", reasons)
    .into_response()
}

/// Why not every edge serves its table; empty if every one does.
fn unready(edges: &[EdgeStatus], processes: &[ProcessStatus]) -> Vec<String> {
    let mut reasons = Vec::new();
    if edges.is_empty() {
        reasons.push("No edge is connected to control.".to_owned());
    } else if edges.iter().all(|edge| edge.is_standby) {
        reasons.push("No edge that serves is connected to control.".to_owned());
    }
    let supervised: Vec<&ProcessStatus> = processes
        .iter()
        .filter(|process| process.role == Role::Edge)
        .collect();
    let has = |state| supervised.iter().any(|process| process.state == state);
    // While one serves, its replacement may take its time.
    let is_relieved = has(ProcessState::Ready);
    let is_replacement = |pid: u32| {
        let is_it = |process: &&ProcessStatus| {
            process.pid == pid && process.state == ProcessState::Starting
        };
        is_relieved && supervised.iter().any(is_it)
    };
    for edge in edges {
        let counts = edge.is_waited_for() && !edge.holds_table();
        if counts && !is_replacement(edge.pid) {
            reasons.push(format!("Edge {} serves no table yet.", edge.pid));
        }
    }
    if !supervised.is_empty()
        && supervised
            .iter()
            .all(|process| process.state == ProcessState::Draining)
    {
        reasons.push("The router is draining: it takes no new connections.".to_owned());
    }
    for process in supervised {
        let pid = process.pid;
        let connected = edges.iter().any(|edge| edge.pid == pid);
        match process.state {
            // Nobody waits for one that stands by.
            ProcessState::Draining | ProcessState::Standby => {}
            ProcessState::Starting if is_relieved => {}
            ProcessState::Waiting => reasons.push(format!(
                "An edge died and waits to be started again ({}).",
                process
                    .last_exit
                    .as_ref()
                    .map_or("no reason known", |last| &last.reason)
            )),
            ProcessState::Starting => reasons.push(format!("Edge {pid} is starting.")),
            ProcessState::Ready if connected => {}
            ProcessState::Ready => {
                reasons.push(format!(
                    "Edge {pid} serves, but is not connected to control."
                ));
            }
        }
    }
    reasons
}

/// `GET /processes`: the supervisor's table, with what each process uses now,
/// and how the last ones ended.
pub(super) async fn processes(State(admin): State<Admin>) -> Json<Value> {
    let scraped = admin.scrape.numbers(&admin.state.fleet).await;
    let rows = admin.state.processes.latest().into_iter();
    let obituaries: Vec<Departed> = rows.flat_map(|row| row.obituaries).collect();
    Json(json!({
        "processes": process_list(&admin.state, &scraped),
        "obituaries": obituaries,
    }))
}

/// The rows of [`processes`].
pub(super) fn process_list(state: &AdminState, scraped: &Scraped) -> Vec<Value> {
    let edges = state.fleet.edges();
    let rows = state.processes.latest().into_iter().map(|mut process| {
        // They are told beside the rows: see `processes`.
        process.obituaries.clear();
        let mut row = match serde_json::to_value(&process) {
            Ok(Value::Object(row)) => row,
            _ => Map::new(),
        };
        let usage = procfs::usage(&process, &scraped.descriptors);
        row.insert("usage".into(), json!(usage));
        let edge = edges.iter().find(|edge| edge.pid == process.pid);
        if let Some(edge) = edge.filter(|_| process.role == Role::Edge) {
            row.insert("edge".into(), link(edge));
        }
        Value::Object(row)
    });
    rows.collect()
}

/// What control knows of an edge by its connection.
fn link(edge: &EdgeStatus) -> Value {
    json!({
        "state": edge.state(),
        "revision": edge.active_revision,
        "apps": edge.apps,
        "nacks": edge.nacks,
        "connected_at_ms": edge.connected_at_ms,
    })
}

/// `GET /config`: every setting in force, by key. No setting holds a secret;
/// tokens are in files of their own.
pub(super) async fn config(State(state): State<AdminState>) -> Json<Value> {
    let entries = state.settings.entries().into_iter();
    let settings: Map<String, Value> = entries
        .map(|(key, value)| (key.to_owned(), json!(value)))
        .collect();
    Json(json!({ "settings": settings }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(pid: u32, active_revision: Option<u64>) -> EdgeStatus {
        EdgeStatus {
            id: 1,
            pid,
            threads: 2,
            program: String::new(),
            connected_at_ms: 0,
            active_revision,
            is_standby: false,
            is_pinned: false,
            apps: 0,
            nacks: 0,
            has_table: false,
            limits_version: 0,
            doubt: None,
        }
    }

    fn process(pid: u32, state: ProcessState) -> ProcessStatus {
        ProcessStatus {
            role: Role::Edge,
            pid,
            state,
            started_at_ms: 0,
            restarts: 0,
            last_exit: None,
            open_descriptors: None,
            upgrade: None,
            obituaries: Vec::new(),
        }
    }

    #[test]
    fn ready_means_that_every_edge_serves() {
        let ready = process(7, ProcessState::Ready);
        assert!(unready(&[edge(7, Some(1))], &[]).is_empty());
        assert!(unready(&[edge(7, Some(1))], std::slice::from_ref(&ready)).is_empty());
        let draining = process(6, ProcessState::Draining);
        assert!(unready(&[edge(7, Some(1))], &[ready.clone(), draining]).is_empty());
        let replacement = process(8, ProcessState::Starting);
        let both = [edge(7, Some(1)), edge(8, None)];
        assert!(unready(&both, &[ready, replacement]).is_empty());
    }

    #[test]
    fn a_standby_is_not_waited_for_and_a_pinned_edge_serves() {
        let ready = process(7, ProcessState::Ready);
        let standby = EdgeStatus {
            is_standby: true,
            ..edge(8, None)
        };
        let both = [edge(7, Some(1)), standby.clone()];
        let processes = [ready, process(8, ProcessState::Standby)];
        assert!(unready(&both, &processes).is_empty());
        assert_eq!(
            unready(&[standby], &[]),
            ["No edge that serves is connected to control."]
        );
        let pinned = EdgeStatus {
            is_pinned: true,
            ..edge(7, Some(4))
        };
        assert!(unready(&[pinned], &processes[..1]).is_empty());
    }

    #[test]
    fn a_draining_router_is_not_ready() {
        let draining = process(7, ProcessState::Draining);
        assert_eq!(
            unready(&[edge(7, Some(1))], &[draining]),
            ["The router is draining: it takes no new connections."]
        );
    }

    #[test]
    fn every_reason_names_the_edge() {
        assert_eq!(unready(&[], &[]), ["No edge is connected to control."]);
        assert_eq!(
            unready(&[edge(7, None)], &[]),
            ["Edge 7 serves no table yet."]
        );
        let serving = [edge(7, Some(1))];
        for (state, word) in [
            (ProcessState::Starting, "Edge 8 is starting."),
            (
                ProcessState::Ready,
                "Edge 8 serves, but is not connected to control.",
            ),
            (
                ProcessState::Waiting,
                "An edge died and waits to be started again (no reason known).",
            ),
        ] {
            assert_eq!(unready(&serving, &[process(8, state)]), [word]);
        }
    }
}
