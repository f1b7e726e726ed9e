//! `/metrics`: the edges' rows, and the rows that only control can fill.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::Admin;
use super::exposition::{CONTENT_TYPE, Exposition};
use super::procfs::{self, Usage};
use super::scrape::Scraped;
use crate::control::AdminState;
use crate::control::events::now_ms;
use crate::feed::messages::AppReport;
use crate::observe::Code;
use crate::observe::metrics::{Kind, Merge, Row};

macro_rules! rows {
    ($($row:ident $kind:ident $name:literal [$unit:literal] ($($label:literal),*) $help:literal)+) => {
        $(static $row: Row = Row {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            labels: &[$($label),*],
            merge: Merge::Sum,
            help: $help,
        };)+

        /// Every row of this file.
        #[cfg(test)]
        static ROWS: &[&Row] = &[$(&$row,)+];
    };
}

rows! {
    COMMIT Histogram "portico_commit_seconds" ["seconds"] ()
    "How long each change waited until it was durable: its turn, the others of its commit, and the disk. An import's groups of lines count as one each."
    PROPAGATION Histogram "portico_propagation_seconds" ["seconds"] ()
    "For each revision, the time from when it was durable until every serving edge routed by it on all its threads, by control's monotonic clock. Edges that stand by or are pinned are not waited for; while none serves, revisions wait, and count once one does."

    BUILD Gauge "portico_build_info" ["1"] ("version")
    "Always 1; says which version of the program control runs."

    REVISION Gauge "portico_control_revision" ["revision"] ()
    "The store's last durable revision. portico_table_revision follows it within moments."
    ACTIVE Gauge "portico_control_active_revision" ["revision"] ()
    "The revision that every serving edge has acknowledged; 0 while one holds no table, or is not connected. Edges that stand by or are pinned do not count."
    APPS Gauge "portico_control_apps" ["apps"] ()
    "Apps registered."
    DOMAINS Gauge "portico_control_domains" ["domains"] ()
    "Hosts claimed by apps."
    BACKENDS Gauge "portico_control_backends" ["backends"] ()
    "Backends registered, whatever their standing."
    LEASES Gauge "portico_control_leases" ["leases"] ("state")
    "Backends registered with a lease: in force, or expired (the backend is suspect and used only if nothing better is left)."
    FROZEN Gauge "portico_control_lease_removal_frozen" ["1"] ()
    "1 while so many leases have expired at once that removal of suspects is frozen: look for the fault in the network or here, not in the backends."
    WRITING Gauge "portico_control_store_writing" ["1"] ()
    "1 while the store takes changes; 0 means that control must be restarted."
    API Counter "portico_control_api_requests_total" ["requests"] ("status")
    "Requests to the registration API, by status."

    EDGES Gauge "portico_control_edges" ["edges"] ("state")
    "Edges connected to control, by what they do: serving; loading, which is about to serve and holds no table yet; standby, which holds the table and serves nobody; pinned, which serves the table that ran well because newer ones crashed, and takes no change. Changes are active once the serving ones have them."
    EDGES_MISSING Gauge "portico_control_edges_missing" ["edges"] ()
    "Connected edges that did not report their numbers in time for this scrape: their part is missing from it."
    EDGE_REVISION Gauge "portico_control_edge_revision" ["revision"] ("pid")
    "The revision each connected edge has acknowledged as active on all its threads."
    EDGE_NACKS Gauge "portico_control_edge_nacks" ["records"] ("pid")
    "Records each connected edge could not use since it connected."

    RESIDENT Gauge "portico_process_resident_memory_bytes" ["bytes"] ("role")
    "Resident memory of each role's processes."
    MEMORY Gauge "portico_memory_bytes" ["bytes"] ("role", "part")
    "What memory goes to, estimated, by role and part; the parts of several edges are added up. Edges are asked at most once a minute. The part \"resident\" is what all of a role's processes hold; what the others leave of it is the program itself, stacks, buffers and what estimates miss."
    DESCRIPTORS Gauge "portico_process_open_descriptors" ["descriptors"] ("role")
    "Open descriptors of each role's processes, as they tell themselves; an edge that is not connected to control is missing, the supervisor's are those of its last change."
    CPU Counter "portico_process_cpu_seconds_total" ["seconds"] ("role")
    "Processor time, user and system, of each role's running processes."
    UPTIME Gauge "portico_process_uptime_seconds" ["seconds"] ("role")
    "Since when each role's youngest process runs."
    RESTARTS Counter "portico_process_restarts_total" ["restarts"] ("role")
    "How often the supervisor restarted each role after an unwanted death. Why is in /processes."

    APP_REQUESTS Counter "portico_app_requests_total" ["requests"] ("app", "class")
    "Requests of the busiest apps by status class; all others are summed as app=\"other\". An app may move between the two."
    APP_CODES Counter "portico_app_coded_requests_total" ["requests"] ("app", "code")
    "Requests of the busiest apps that ended with a code of the router's own."
    APP_BYTES Counter "portico_app_sent_bytes_total" ["bytes"] ("app")
    "Bytes of answer bodies sent to clients of the busiest apps."
    APP_SECONDS Counter "portico_app_request_seconds_total" ["seconds"] ("app")
    "Sum of the durations of the busiest apps' requests; divide its rate by the request rate for the mean."
    APP_IN_FLIGHT Gauge "portico_app_requests_in_flight" ["requests"] ("app")
    "Requests of the busiest apps being served now."
    APP_QUEUED Gauge "portico_app_requests_queued" ["requests"] ("app")
    "Requests of the busiest apps waiting for a backend with room."
}

/// `GET /metrics`
pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    let scraped = admin.scrape.numbers(&admin.state.fleet).await;
    let mut exposition = Exposition::default();
    exposition.numbers(&scraped.numbers);
    apps(&mut exposition, &scraped.numbers.apps);
    control(&mut exposition, &admin.state, &scraped);
    processes(&mut exposition, &admin.state, &scraped);
    let memory = admin.memory.by_role(&admin.state).await;
    let memory = memory.iter();
    exposition.row(
        &MEMORY,
        memory.map(|(role, part, bytes)| (vec![*role, part.as_str()], *bytes as f64)),
    );
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], exposition.text()).into_response()
}

fn control(out: &mut Exposition, state: &AdminState, scraped: &Scraped) {
    let one = |value: f64| [(Vec::new(), value)];
    let flag = |on: bool| one(f64::from(u8::from(on)));
    out.row(&BUILD, [(vec![env!("CARGO_PKG_VERSION")], 1.0)]);
    out.row(&REVISION, one(state.registry.revision() as f64));
    out.row(
        &ACTIVE,
        one(state.fleet.active_revision().unwrap_or(0) as f64),
    );
    let propagation = state.registry.propagation();
    out.spread(&COMMIT, &propagation.commits());
    out.spread(&PROPAGATION, &propagation.activations());
    let counts = state.registry.counts();
    out.row(&APPS, one(counts.apps as f64));
    out.row(&DOMAINS, one(counts.domains as f64));
    out.row(&BACKENDS, one(counts.backends as f64));
    let (leased, expired, frozen) = state.registry.leases();
    let in_force = leased.saturating_sub(expired);
    out.row(
        &LEASES,
        [
            (vec!["in_force"], in_force as f64),
            (vec!["expired"], expired as f64),
        ],
    );
    out.row(&FROZEN, flag(frozen));
    out.row(&WRITING, flag(state.registry.is_writing()));
    let api = state.api_requests.counts();
    let api: Vec<(String, u64)> = api
        .into_iter()
        .map(|(status, count)| (status.to_string(), count))
        .collect();
    out.row(
        &API,
        api.iter()
            .map(|(status, count)| (vec![status.as_str()], *count as f64)),
    );
    let edges = state.fleet.edges();
    let in_state = |state| edges.iter().filter(|edge| edge.state() == state).count();
    let states = ["serving", "loading", "standby", "pinned"];
    out.row(
        &EDGES,
        states.map(|state| (vec![state], in_state(state) as f64)),
    );
    out.row(
        &EDGES_MISSING,
        one(scraped.edges.saturating_sub(scraped.answered) as f64),
    );
    let pids: Vec<String> = edges.iter().map(|edge| edge.pid.to_string()).collect();
    let of_edges = || edges.iter().zip(&pids);
    out.row(
        &EDGE_REVISION,
        of_edges()
            .map(|(edge, pid)| (vec![pid.as_str()], edge.active_revision.unwrap_or(0) as f64)),
    );
    out.row(
        &EDGE_NACKS,
        of_edges().map(|(edge, pid)| (vec![pid.as_str()], edge.nacks as f64)),
    );
}

/// One role's processes together: during an upgrade there are two edges.
#[derive(Default)]
struct OfRole {
    usage: Usage,
    descriptors: u64,
    restarts: u64,
    started_at_ms: u64,
}

fn processes(out: &mut Exposition, state: &AdminState, scraped: &Scraped) {
    let mut roles: BTreeMap<&'static str, OfRole> = BTreeMap::new();
    for process in state.processes.latest() {
        let role = roles.entry(process.role.name()).or_default();
        role.restarts = role.restarts.max(process.restarts);
        role.started_at_ms = role.started_at_ms.max(process.started_at_ms);
        if let Some(usage) = procfs::usage(&process, &scraped.descriptors) {
            role.usage.resident_bytes += usage.resident_bytes;
            role.descriptors += usage.descriptors.unwrap_or(0);
            role.usage.cpu_seconds += usage.cpu_seconds;
        }
    }
    let now = now_ms();
    let mut row = |row: &Row, value: fn(&OfRole, u64) -> f64| {
        out.row(
            row,
            roles.iter().map(|(role, of)| (vec![*role], value(of, now))),
        );
    };
    row(&RESIDENT, |of, _| of.usage.resident_bytes as f64);
    row(&DESCRIPTORS, |of, _| of.descriptors as f64);
    row(&CPU, |of, _| of.usage.cpu_seconds);
    row(&UPTIME, |of, now| {
        now.saturating_sub(of.started_at_ms) as f64 / 1e3
    });
    row(&RESTARTS, |of, _| of.restarts as f64);
}

/// What the summed rest of the apps is called.
const OTHER: &str = "other";

fn apps(out: &mut Exposition, busiest: &[AppReport]) {
    let apps = named(busiest);
    let apps: Vec<(&str, &AppReport)> = apps.iter().map(|app| (app.app.as_str(), app)).collect();
    let classes = ["1xx", "2xx", "3xx", "4xx", "5xx"];
    out.row(
        &APP_REQUESTS,
        apps.iter().flat_map(|(name, app)| {
            let counts = classes.into_iter().zip(&app.responses);
            counts.map(move |(class, count)| (vec![*name, class], *count as f64))
        }),
    );
    out.row(
        &APP_CODES,
        apps.iter().flat_map(|(name, app)| {
            let codes = app.codes.chunks_exact(2);
            codes.filter_map(move |pair| {
                let code = Code::ALL
                    .iter()
                    .find(|code| u64::from(code.number()) == pair[0])?;
                Some((vec![*name, code.name()], pair[1] as f64))
            })
        }),
    );
    let mut row = |row: &Row, value: fn(&AppReport) -> f64| {
        out.row(
            row,
            apps.iter().map(|(name, app)| (vec![*name], value(app))),
        );
    };
    row(&APP_BYTES, |app| app.bytes as f64);
    row(&APP_SECONDS, |app| app.total_us as f64 / 1e6);
    row(&APP_IN_FLIGHT, |app| app.in_flight as f64);
    row(&APP_QUEUED, |app| app.queued as f64);
}

/// The busiest apps under the names of their series. An app that is really
/// called `other` is counted with the rest: a series may be there only once.
fn named(busiest: &[AppReport]) -> Vec<AppReport> {
    let (rest, mut apps): (Vec<AppReport>, Vec<AppReport>) = busiest
        .iter()
        .cloned()
        .partition(|app| app.app.is_empty() || app.app == OTHER);
    if let Some(mut other) = rest.into_iter().reduce(|mut sum, app| {
        sum.absorb(&app);
        sum
    }) {
        OTHER.clone_into(&mut other.app);
        apps.push(other);
    }
    apps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics;

    #[test]
    fn rows_are_named_and_explained() {
        for row in ROWS {
            assert!(row.name.starts_with("portico_"), "{}", row.name);
            assert!(row.help.ends_with('.'), "{}", row.name);
            assert_eq!(
                row.kind == Kind::Counter,
                row.name.ends_with("_total"),
                "{}",
                row.name
            );
            assert_eq!(metrics::row(row.name), None, "{} is an edge's", row.name);
            assert_eq!(
                ROWS.iter().filter(|other| other.name == row.name).count(),
                1
            );
        }
    }

    #[test]
    fn an_app_called_other_does_not_make_a_series_twice() {
        let app = |name: &str, count| AppReport {
            app: name.into(),
            responses: vec![0, count, 0, 0, 0],
            codes: vec![12, 1],
            ..AppReport::default()
        };
        let mut exposition = Exposition::default();
        apps(
            &mut exposition,
            &[app("shop", 5), app("other", 4), app("", 3)],
        );
        let text = exposition.text();
        let line = "portico_app_requests_total{app=\"other\",class=\"2xx\"} 7";
        assert!(text.lines().any(|found| found == line), "{text}");
        let others = text.lines().filter(|line| {
            line.starts_with("portico_app_requests_total{app=\"other\",class=\"2xx\"}")
        });
        assert_eq!(others.count(), 1);
        assert!(text.contains("portico_app_coded_requests_total{app=\"other\",code=\"H12\"} 2"));
    }
}
