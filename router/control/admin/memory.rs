//! `/memory`: what the memory of control and of every edge goes to.
//!
//! An edge walks its whole table to tell, so it is asked when somebody asks
//! here, and for `/metrics` at most once a minute.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::{Admin, procfs};
use crate::control::fleet::Fleet;
use crate::control::{AdminState, memory};
use crate::feed::messages::MemoryPart;

/// What edges told this long ago is told again by `/metrics`.
const FRESH: Duration = Duration::from_secs(60);

/// The part that is no part: all that is resident.
const RESIDENT: &str = "resident";

/// An edge's process id, and its parts.
type OfEdge = (u32, Vec<MemoryPart>);

/// What edges last told.
#[derive(Debug, Default)]
pub(super) struct EdgeMemory {
    last: Mutex<Option<(Instant, Arc<Vec<OfEdge>>)>>,
}

impl EdgeMemory {
    /// What edges told, at most so long ago.
    async fn parts(&self, fleet: &Fleet, fresh: Duration) -> Arc<Vec<OfEdge>> {
        let mut last = self.last.lock().await;
        if let Some((_, parts)) = last.as_ref().filter(|(at, _)| at.elapsed() < fresh) {
            return Arc::clone(parts);
        }
        let parts = Arc::new(fleet.memory().await);
        *last = Some((Instant::now(), Arc::clone(&parts)));
        parts
    }

    /// Bytes by role and part, all edges together.
    pub async fn by_role(&self, state: &AdminState) -> Vec<(&'static str, String, u64)> {
        let mut of_edges: BTreeMap<String, u64> = BTreeMap::new();
        for (_, parts) in self.parts(&state.fleet, FRESH).await.iter() {
            for part in parts {
                *of_edges.entry(part.part.clone()).or_default() += part.bytes;
            }
        }
        let resident = procfs::resident_bytes(std::process::id());
        let resident = resident.map(|bytes| MemoryPart {
            part: RESIDENT.to_owned(),
            bytes,
        });
        let control = memory::parts(state).into_iter().chain(resident);
        let control = control.map(|part| ("control", part.part, part.bytes));
        let edges = of_edges.into_iter();
        control
            .chain(edges.map(|(part, bytes)| ("edge", part, bytes)))
            .collect()
    }
}

/// `GET /memory`: each process's parts, estimated, beside what is resident.
pub(super) async fn show(State(admin): State<Admin>) -> Json<Value> {
    let state = &admin.state;
    let edges = admin.memory.parts(&state.fleet, Duration::ZERO).await;
    let mut processes = vec![view("control", std::process::id(), &memory::parts(state))];
    processes.extend(edges.iter().map(|(pid, parts)| view("edge", *pid, parts)));
    Json(json!({ "processes": processes }))
}

fn view(role: &str, pid: u32, parts: &[MemoryPart]) -> Value {
    let named: Map<String, Value> = parts
        .iter()
        .filter(|part| part.part != RESIDENT)
        .map(|part| (part.part.clone(), json!(part.bytes)))
        .collect();
    let told = parts.iter().filter(|part| part.part != RESIDENT);
    let told: u64 = told.map(|part| part.bytes).sum();
    let resident = procfs::resident_bytes(pid);
    json!({
        "role": role,
        "pid": pid,
        "resident_bytes": resident,
        "parts": named,
        // The program itself, its stacks, buffers, and what an estimate misses.
        "other_bytes": resident.map(|resident| resident.saturating_sub(told)),
    })
}
