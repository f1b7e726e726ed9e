//! How long changes take, what is counted over the death of an edge, and what
//! memory goes to: the router's own word on itself.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Backend, Router, eventually, processes};

/// The value of a series on `/metrics`.
fn metric(router: &Router, series: &str) -> Option<f64> {
    let text = router.admin_get("/metrics").expect(200).text();
    let line = text.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    line?.rsplit(' ').next()?.parse().ok()
}

#[test]
fn each_revision_is_timed_until_every_edge_has_it() {
    let router = Router::start();
    for number in 0..20 {
        let path = format!("/v1/apps/app-{number}?wait=active");
        router.put(&path, &json!({ "domains": [] })).expect(201);
    }
    let count = |name: &str| metric(&router, &format!("{name}_count"));
    assert_eq!(count("portico_commit_seconds"), Some(20.0));
    assert_eq!(count("portico_propagation_seconds"), Some(20.0));
    let sum = metric(&router, "portico_propagation_seconds_sum").expect("it is there");
    assert!(sum > 0.0 && sum < 60.0, "{sum}");
    let changes = &router.admin_get("/overview").expect(200).json()["changes"];
    assert_eq!(changes["propagation"]["count"], 20);
    let p99 = changes["propagation"]["p99_seconds"].as_f64();
    assert!(
        p99 >= changes["propagation"]["p50_seconds"].as_f64(),
        "{changes}"
    );
}

#[test]
fn totals_do_not_fall_when_an_edge_is_killed() {
    let router = Router::start();
    let backend = Backend::named("counted");
    router.serve("shop", &[&backend]);
    let served = || metric(&router, "portico_requests_total{class=\"2xx\"}").unwrap_or(0.0);
    let of_app = || {
        let series = "portico_app_requests_total{app=\"shop\",class=\"2xx\"}";
        metric(&router, series).unwrap_or(0.0)
    };
    for _ in 0..10 {
        router.get("shop", "/").expect(200);
    }
    eventually("all ten are counted", || (served() == 10.0).then_some(()));
    let killed = router.process("edge");
    processes::signal(killed, Signal::KILL);
    eventually("another edge serves", || {
        assert!(served() >= 10.0, "the total fell to {}", served());
        (router.ready_status() == Some(200) && router.process("edge") != killed).then_some(())
    });
    for _ in 0..5 {
        router.get("shop", "/").expect(200);
    }
    eventually("both edges' requests are counted", || {
        (served() == 15.0 && of_app() == 15.0).then_some(())
    });
    // What is under way is not added to: nothing is.
    assert_eq!(metric(&router, "portico_requests_in_flight"), Some(0.0));
}

/// The pid of an edge in this state.
fn edge_in(router: &Router, state: &str) -> Option<u32> {
    let processes = router.admin_get("/processes").expect(200).json();
    let rows = processes["processes"].as_array()?.clone();
    let edge = rows
        .iter()
        .find(|row| row["role"] == "edge" && row["state"] == state)?;
    u32::try_from(edge["pid"].as_u64()?).ok()
}

#[test]
fn nobody_waits_for_an_edge_that_stands_by() {
    let router = Router::with(&["edge.standby=\"on\""]);
    let connected = || metric(&router, "portico_control_edges{state=\"standby\"}");
    eventually("a standby is connected", || {
        (connected() == Some(1.0)).then_some(())
    });
    let standby = eventually("and listed", || edge_in(&router, "standby"));
    processes::signal(standby, Signal::STOP);
    for number in 0..5 {
        let path = format!("/v1/apps/app-{number}?wait=active&timeout=4s");
        router.put(&path, &json!({ "domains": [] })).expect(201);
    }
    assert_eq!(router.ready_status(), Some(200));
    processes::signal(standby, Signal::CONT);
}

#[test]
fn memory_is_told_by_process_and_part() {
    let router = Router::start();
    router.serve("shop", &[]);
    let memory = router.admin_get("/memory").expect(200).json();
    let process = |role: &str| -> Value {
        let processes = memory["processes"].as_array().expect("a list");
        let found = processes.iter().find(|process| process["role"] == role);
        found
            .unwrap_or_else(|| panic!("no {role} in {memory}"))
            .clone()
    };
    let cached = &process("control")["parts"]["store_cache"];
    assert!(cached.as_u64() > Some(0), "{cached}");
    for (role, parts) in [
        ("control", ["apps", "hosts", "change_log", "store_cache"]),
        ("edge", ["routes", "names", "apps", "backends"]),
    ] {
        let process = process(role);
        assert!(
            process["resident_bytes"].as_u64() > Some(1 << 20),
            "{process}"
        );
        // What is resident is beside the parts, and more than any.
        assert!(process["other_bytes"].as_u64() > Some(0), "{process}");
        assert!(process["parts"]["resident"].is_null(), "{process}");
        for part in parts {
            assert!(process["parts"][part].is_u64(), "{part} of {process}");
            let series = format!("portico_memory_bytes{{role=\"{role}\",part=\"{part}\"}}");
            assert!(metric(&router, &series).is_some(), "{series}");
        }
    }
}
