//! The routes, asked in memory, over a real store and an edge played here.

mod orders;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::control::events::Events;
use crate::control::fleet::{Ask, Fleet};
use crate::control::registry::Registry;
use crate::control::staging::{AppSpec, BackendSpec, Condition};
use crate::control::store::{Contents, Store, store_path};
use crate::control::tokens::Tokens;
use crate::control::{Processes, api_requests::ApiRequests};
use crate::feed::messages::{BackendReport, EdgeHello, MemoryPart, Report, Standing};
use crate::heritage::{Heard, Lifeline, ProcessState, ProcessStatus, Role, Tether};
use crate::observe::{self, AppCells, Code, EdgeCells};
use crate::settings::Settings;

const OPERATOR: &str = "operator-token-of-this-test";

struct Port {
    state: AdminState,
    router: Router,
    /// The supervisor's end of its lifeline.
    tether: Tether,
    _folder: tempfile::TempDir,
}

/// An admin port with one app registered, and no edge yet.
async fn port(listen: &str) -> Port {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(&store_path(folder.path())).unwrap();
    let contents = Contents {
        cluster_id: "test".into(),
        epoch: 1,
        ..Contents::default()
    };
    store.found(&contents).unwrap();
    let tokens = Arc::new(Tokens::new(OPERATOR, Vec::new()));
    let (registry, _writer) = Registry::start(store, contents, Arc::clone(&tokens)).unwrap();
    let events = Arc::new(Events::default());
    let mut settings = Settings::default();
    settings.admin.listen = listen.parse().unwrap();
    let (tether, lifeline) = Lifeline::pair().unwrap();
    let state = AdminState {
        registry,
        fleet: Arc::new(Fleet::new(Arc::clone(&events), Arc::default())),
        tokens,
        events,
        settings: Arc::new(settings),
        api_requests: ApiRequests::default(),
        processes: Processes::default(),
        lifeline,
    };
    register(&state, "shop").await;
    Port {
        router: router(state.clone()),
        state,
        tether,
        _folder: folder,
    }
}

async fn register(state: &AdminState, name: &str) {
    let spec = AppSpec {
        name: name.into(),
        domains: vec![format!("{name}.example")],
        backends: Some(vec![BackendSpec {
            id: "web.1".into(),
            address: "127.0.0.1:9001".into(),
            weight: 100,
            release: "v1".into(),
            lease_seconds: 0,
        }]),
        ..AppSpec::default()
    };
    let change = state
        .registry
        .change(move |staging| staging.put_app(&spec, &Condition::Always));
    change.await.unwrap();
}

impl Port {
    /// Connects an edge that has served 3 requests, one of them with H12.
    fn connect_edge(&self) -> tokio::task::JoinHandle<()> {
        let hello = EdgeHello {
            pid: std::process::id(),
            threads: 1,
            ..EdgeHello::default()
        };
        let (membership, mut asks) = self.state.fleet.admit(&hello, Some(1));
        tokio::spawn(async move {
            let _membership = membership;
            while let Some(ask) = asks.recv().await {
                if let Ask::Report { app, answer, .. } = ask {
                    let _ = answer.send(edge_report(&app));
                }
            }
        })
    }

    async fn ask(&self, method: Method, path: &str, token: Option<&str>) -> (StatusCode, String) {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "127.0.0.1:8082");
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = to_bytes(response.into_body(), 1 << 22).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn read(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }
}

fn edge_report(app: &str) -> Report {
    let cells = EdgeCells::default();
    let app_cells = AppCells::default();
    for (status, code) in [(200, None), (200, None), (503, Some(Code::H12))] {
        cells.inc(observe::Counter::responses(status));
        cells.observe(observe::Histogram::Total, 1_000);
        app_cells.begin();
        app_cells.answered(status, code, 10, 1_000);
        if let Some(code) = code {
            cells.inc_code(code);
        }
    }
    let (samples, histograms) = observe::metrics::collect(&[cells]);
    let mut seen = AppCells::report("shop", &[app_cells], 0);
    if app == "shop" {
        let backend = BackendReport {
            id: "web.1".into(),
            requests: 3,
            ..BackendReport::default()
        };
        seen.backends.push(backend);
    }
    Report {
        id: 1,
        samples,
        histograms,
        apps: vec![seen],
        memory: vec![MemoryPart {
            part: "routes".into(),
            bytes: 77,
        }],
        ..Report::default()
    }
}

#[tokio::test]
async fn ready_once_an_edge_serves() {
    let port = port("127.0.0.1:0").await;
    let (status, body) = port.ask(Method::GET, "/readyz", None).await;
    assert_eq!(status, 503);
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["code"], "not_ready");
    assert_eq!(problem["reasons"][0], "No edge is connected to control.");
    port.connect_edge();
    assert_eq!(port.read("/readyz").await["edges"], 1);
    assert_eq!(port.read("/healthz").await["status"], "ok");
}

#[tokio::test]
async fn metrics_hold_the_edges_rows_and_controls() {
    let port = port("127.0.0.1:0").await;
    port.connect_edge();
    port.state.api_requests.answered(201);
    port.state.processes.replace(vec![ProcessStatus {
        role: Role::Control,
        pid: std::process::id(),
        state: ProcessState::Ready,
        started_at_ms: 1,
        restarts: 2,
        last_exit: None,
        open_descriptors: None,
        upgrade: None,
        obituaries: Vec::new(),
    }]);
    let (status, text) = port.ask(Method::GET, "/metrics", None).await;
    assert_eq!(status, 200);
    for line in [
        "portico_requests_total{class=\"2xx\"} 2",
        "portico_coded_requests_total{code=\"H12\",fault=\"app\"} 1",
        "portico_app_requests_total{app=\"shop\",class=\"5xx\"} 1",
        "portico_control_revision 1",
        "portico_control_apps 1",
        "portico_control_edges{state=\"serving\"} 1",
        "portico_control_edges_missing 0",
        "portico_control_api_requests_total{status=\"201\"} 1",
        "portico_process_restarts_total{role=\"control\"} 2",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "{line} is not in\n{text}"
        );
    }
    assert!(text.contains("portico_process_resident_memory_bytes{role=\"control\"} "));
    assert!(text.contains("portico_memory_bytes{role=\"control\",part=\"apps\"} "));
    assert!(text.contains("portico_memory_bytes{role=\"edge\",part=\"routes\"} 77"));
    for name in ["portico_commit_seconds", "portico_propagation_seconds"] {
        assert!(text.contains(&format!("# TYPE {name} histogram")), "{text}");
    }
    // The one app was registered before, and no edge had to be waited for.
    assert!(text.contains("portico_commit_seconds_count 1"), "{text}");
}

#[tokio::test]
async fn memory_is_told_by_process_and_part() {
    let port = port("127.0.0.1:0").await;
    port.connect_edge();
    let before = port.read("/memory").await;
    let processes = before["processes"].as_array().unwrap();
    let roles: Vec<_> = processes.iter().map(|it| it["role"].as_str()).collect();
    assert_eq!(roles, [Some("control"), Some("edge")]);
    assert_eq!(processes[1]["parts"]["routes"], 77);
    assert!(processes[0]["resident_bytes"].as_u64() > Some(100_000));
    register(&port.state, "blog").await;
    let after = port.read("/memory").await;
    for part in ["apps", "change_log"] {
        let bytes = |memory: &Value| memory["processes"][0]["parts"][part].as_u64();
        assert!(bytes(&after) > bytes(&before), "{part}: {after}");
    }
}

#[tokio::test]
async fn totals_do_not_fall_when_an_edge_goes() {
    let port = port("127.0.0.1:0").await;
    let total = async || {
        let (_, text) = port.ask(Method::GET, "/metrics", None).await;
        let line = text
            .lines()
            .find(|line| line.starts_with("portico_requests_total{class=\"2xx\"}"));
        line.map(|line| line.rsplit(' ').next().unwrap().to_owned())
    };
    let edge = port.connect_edge();
    assert_eq!(total().await.as_deref(), Some("2"));
    edge.abort();
    while !port.state.fleet.edges().is_empty() {
        tokio::task::yield_now().await;
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(total().await.as_deref(), Some("2"), "it left");
}

#[tokio::test]
async fn metrics_come_without_edges_too() {
    let port = port("127.0.0.1:0").await;
    let (status, text) = port.ask(Method::GET, "/metrics", None).await;
    assert_eq!(status, 200);
    assert!(
        text.lines()
            .any(|line| line == "portico_control_edges{state=\"serving\"} 0")
    );
}

#[tokio::test]
async fn an_app_is_shown_with_its_traffic() {
    let port = port("127.0.0.1:0").await;
    port.connect_edge();
    let app = port.read("/apps/shop").await;
    assert_eq!(app["domains"][0], "shop.example");
    assert_eq!(app["traffic"]["requests"], 3);
    assert_eq!(app["traffic"]["codes"]["H12"], 1);
    assert_eq!(app["backends"][0]["standing"], "active");
    assert_eq!(app["backends"][0]["requests"], 3);
    let (status, body) = port.ask(Method::GET, "/apps/nobody", None).await;
    assert_eq!(status, 404);
    assert!(body.contains("nobody"), "{body}");
}

#[tokio::test]
async fn apps_come_in_pages() {
    let port = port("127.0.0.1:0").await;
    for name in ["a", "b", "c"] {
        register(&port.state, name).await;
    }
    let first = port.read("/apps?limit=3").await;
    assert_eq!(first["apps"].as_array().unwrap().len(), 3);
    assert_eq!(
        (&first["next"], &first["total"]),
        (&Value::from("c"), &Value::from(4))
    );
    let second = port.read("/apps?limit=3&after=c").await;
    assert_eq!(second["apps"][0]["app"], "shop");
    assert_eq!(second["next"], Value::Null);
    for bad in [
        "/apps?limit=0",
        "/apps?limit=many",
        "/apps?sort=name",
        "/apps?limit=100000",
    ] {
        let (status, body) = port.ask(Method::GET, bad, None).await;
        assert_eq!(status, 400, "{bad}");
        assert!(body.contains("\"code\":\"invalid_"), "{body}");
    }
}

#[tokio::test]
async fn draining_needs_an_operator_and_takes_the_backend_out() {
    let port = port("127.0.0.1:0").await;
    let path = "/apps/shop/backends/web.1/drain?drain=5s";
    assert_eq!(port.ask(Method::POST, path, None).await.0, 401);
    assert_eq!(port.ask(Method::POST, path, Some("wrong")).await.0, 401);
    let (status, body) = port.ask(Method::POST, path, Some(OPERATOR)).await;
    assert_eq!(status, 200, "{body}");
    let record = port.state.registry.app("shop").unwrap();
    assert_eq!(record.backends[0].standing(), Standing::Draining);
    assert_eq!(record.backends[0].drain_ms, 5_000);
    assert_eq!(
        port.read("/apps/shop").await["backends"][0]["standing"],
        "draining"
    );
    let told = port.state.events.latest(1);
    assert_eq!(
        (&*told[0].kind, &*told[0].app),
        ("backend_draining", "shop")
    );
    for (path, status) in [
        ("/apps/shop/backends/web.9/drain", 404),
        ("/apps/none/backends/web.1/drain", 404),
        ("/apps/shop/backends/web.1/drain?drain=long", 400),
        ("/apps/shop/backends/web.1/drain?drain=2h", 400),
    ] {
        assert_eq!(
            port.ask(Method::POST, path, Some(OPERATOR)).await.0,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn away_from_home_everything_needs_a_token() {
    let port = port("0.0.0.0:0").await;
    for path in [
        "/metrics",
        "/apps",
        "/apps/shop",
        "/events",
        "/config",
        "/processes",
        "/overview",
    ] {
        assert_eq!(port.ask(Method::GET, path, None).await.0, 401, "{path}");
    }
    assert_eq!(port.ask(Method::GET, "/apps", Some(OPERATOR)).await.0, 200);
    assert_eq!(port.ask(Method::GET, "/healthz", None).await.0, 200);
}

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let port = port("127.0.0.1:0").await;
    for (method, path, status) in [
        (Method::GET, "/params/retries", 404),
        (Method::GET, "/nowhere", 404),
        (Method::POST, "/metrics", 405),
    ] {
        let (found, body) = port.ask(method, path, Some(OPERATOR)).await;
        assert_eq!(found, status, "{path}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], status);
    }
}

#[tokio::test]
async fn events_tell_what_was_and_what_comes() {
    let port = port("127.0.0.1:0").await;
    port.state
        .events
        .say("first_thing", "shop", "", "It\nhappened.".into());
    let (_, history) = port.ask(Method::GET, "/events?follow=false", None).await;
    assert!(
        history.starts_with("event: first_thing\ndata: {"),
        "{history}"
    );
    assert_eq!(history.matches("\n\n").count(), 1);
    let request = Request::builder()
        .uri("/events?limit=0")
        .header(header::HOST, "localhost");
    let request = request.body(Body::empty()).unwrap();
    let response = port.router.clone().oneshot(request).await.unwrap();
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/event-stream"
    );
    let mut body = response.into_body().into_data_stream();
    port.state.events.say("second_thing", "", "", "Now.".into());
    let told = futures_util::StreamExt::next(&mut body)
        .await
        .unwrap()
        .unwrap();
    assert!(told.starts_with(b"event: second_thing\n"), "{told:?}");
}

#[tokio::test]
async fn settings_are_shown_by_key() {
    let port = port("127.0.0.1:0").await;
    let settings = &port.read("/config").await["settings"];
    assert_eq!(settings["admin.listen"], "127.0.0.1:0");
    assert_eq!(settings["log.format"], "logfmt");
    assert!(
        !port
            .ask(Method::GET, "/config", None)
            .await
            .1
            .contains(OPERATOR)
    );
}

#[tokio::test]
async fn the_overview_has_what_the_page_reads() {
    let port = port("127.0.0.1:0").await;
    port.connect_edge();
    let overview = port.read("/overview").await;
    assert_eq!(overview["ready"], true);
    assert_eq!(overview["traffic"]["requests"]["2xx"], 2.0);
    assert_eq!(overview["apps"][0]["app"], "shop");
    let bounds = overview["latency_bounds_seconds"].as_array().unwrap().len();
    let buckets = overview["latency"]["total"]["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), bounds + 1);
    let (status, page) = port.ask(Method::GET, "/", None).await;
    assert_eq!(status, 200);
    assert!(
        page.contains("fetch(\"overview\""),
        "the page must read the overview"
    );
}

#[tokio::test]
async fn an_upgrade_is_an_operators_wish_and_goes_to_the_supervisor() {
    let port = port("127.0.0.1:0").await;
    let (status, _) = port.ask(Method::POST, "/upgrade", None).await;
    assert_eq!(status, 401);
    let (status, body) = port.ask(Method::POST, "/upgrade", Some(OPERATOR)).await;
    assert_eq!(status, 503, "no supervisor has told of itself: {body}");
    assert_eq!(port.tether.hear(), Heard::Quiet);
    port.state.processes.replace(vec![ProcessStatus {
        role: Role::Supervisor,
        pid: 1,
        state: ProcessState::Ready,
        started_at_ms: 1,
        restarts: 0,
        last_exit: None,
        open_descriptors: None,
        upgrade: None,
        obituaries: Vec::new(),
    }]);
    let (status, body) = port.ask(Method::POST, "/upgrade", Some(OPERATOR)).await;
    assert_eq!(status, 202, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["attempt"], 1);
    let upgrade = crate::heritage::Report::Upgrade;
    assert_eq!(port.tether.hear(), Heard::Report(upgrade));
}
