//! What an app may say of crashes: kept as it was said, and nonsense refused
//! naming the field, with nothing changed.

use serde_json::{Value, json};

use crate::api_apps::problem;
use crate::harness::router::request;
use crate::harness::{Conduct, Instance, Router, eventually};

/// Policies that cannot be meant, as JSON, after the field each must name.
const NONSENSE: &[(&str, &str)] = &[
    ("try_timeout", r#"{"try_timeout": "0s"}"#),
    ("try_timeout", r#"{"try_timeout": -1}"#),
    ("try_timeout", r#"{"try_timeout": "25h"}"#),
    ("try_timeout", r#"{"try_timeout": "2s", "deadline": "1s"}"#),
    (
        "try_timeout",
        r#"{"try_timeout": "2s", "first_byte_timeout": "1s"}"#,
    ),
    ("deadline", r#"{"deadline": "0ms"}"#),
    ("deadline", r#"{"deadline": "soon"}"#),
    ("deadline", r#"{"deadline": "-5s"}"#),
    ("boot_wait", r#"{"boot_wait": "-1s"}"#),
    ("boot_wait", r#"{"boot_wait": "2d"}"#),
    ("slow_start", r#"{"slow_start": -10}"#),
    ("slow_start", r#"{"slow_start": []}"#),
    ("ejection", r#"{"ejection": "yes"}"#),
    ("ejection", r#"{"ejection": 1}"#),
    ("hedge", r#"{"hedge": ""}"#),
    ("hedge", r#"{"hedge": "p0"}"#),
    ("hedge", r#"{"hedge": "p100"}"#),
    ("hedge", r#"{"hedge": "p-95"}"#),
    ("hedge", r#"{"hedge": "p95.00001"}"#),
    ("hedge", r#"{"hedge": "pNaN"}"#),
    ("hedge", r#"{"hedge": "-50ms"}"#),
    ("hedge", r#"{"hedge": "0ms"}"#),
    ("hedge", r#"{"hedge": "always"}"#),
    ("hedge", r#"{"hedge": false}"#),
    ("retry_budget", r#"{"retry_budget": "20%"}"#),
    (
        "retry_budget.percent",
        r#"{"retry_budget": {"percent": -1}}"#,
    ),
    (
        "retry_budget.percent",
        r#"{"retry_budget": {"percent": 101}}"#,
    ),
    (
        "retry_budget.percent",
        r#"{"retry_budget": {"percent": 12.5}}"#,
    ),
    (
        "retry_budget.per_second",
        r#"{"retry_budget": {"per_second": -1}}"#,
    ),
    (
        "retry_budget.per_second",
        r#"{"retry_budget": {"per_second": 4294967296}}"#,
    ),
    (
        "retry_budget.per_minute",
        r#"{"retry_budget": {"per_minute": 1}}"#,
    ),
    ("retry_buget", r#"{"retry_buget": {"percent": 1}}"#),
    ("probe", r#"{"probe": "/healthz"}"#),
    ("probe.path", r#"{"probe": {}}"#),
    ("probe.path", r#"{"probe": {"path": ""}}"#),
    ("probe.path", r#"{"probe": {"path": "healthz"}}"#),
    ("probe.path", r#"{"probe": {"path": "/a b"}}"#),
    ("probe.path", r#"{"probe": {"path": "/a\r\nX-Evil: yes"}}"#),
    ("probe.path", r#"{"probe": {"path": "/é"}}"#),
    ("probe.path", r#"{"probe": {"path": "/", "tcp": true}}"#),
    ("probe.path", r#"{"probe": {"tcp": false}}"#),
    ("probe.tcp", r#"{"probe": {"path": "/", "tcp": "yes"}}"#),
    (
        "probe.host",
        r#"{"probe": {"path": "/", "host": "a.example\r\nX-Evil: yes"}}"#,
    ),
    ("probe.host", r#"{"probe": {"path": "/", "host": ""}}"#),
    (
        "probe.host",
        r#"{"probe": {"tcp": true, "host": "a.example"}}"#,
    ),
    (
        "probe.interval",
        r#"{"probe": {"path": "/", "interval": "99ms"}}"#,
    ),
    (
        "probe.interval",
        r#"{"probe": {"path": "/", "interval": "0s"}}"#,
    ),
    (
        "probe.interval",
        r#"{"probe": {"path": "/", "interval": "2h"}}"#,
    ),
    (
        "probe.interval",
        r#"{"probe": {"path": "/", "interval": -5}}"#,
    ),
    (
        "probe.timeout",
        r#"{"probe": {"path": "/", "timeout": "0s"}}"#,
    ),
    (
        "probe.timeout",
        r#"{"probe": {"path": "/", "timeout": "1h"}}"#,
    ),
    ("probe.rise", r#"{"probe": {"path": "/", "rise": 0}}"#),
    ("probe.rise", r#"{"probe": {"path": "/", "rise": -2}}"#),
    ("probe.fall", r#"{"probe": {"path": "/", "fall": 101}}"#),
    ("probe.fall", r#"{"probe": {"path": "/", "fall": "3"}}"#),
    ("probe.status", r#"{"probe": {"path": "/", "status": ""}}"#),
    (
        "probe.status",
        r#"{"probe": {"path": "/", "status": "99"}}"#,
    ),
    (
        "probe.status",
        r#"{"probe": {"path": "/", "status": "600"}}"#,
    ),
    (
        "probe.status",
        r#"{"probe": {"path": "/", "status": "2xx"}}"#,
    ),
    (
        "probe.status",
        r#"{"probe": {"path": "/", "status": "399-200"}}"#,
    ),
    (
        "probe.status",
        r#"{"probe": {"path": "/", "status": "200-299,250-350"}}"#,
    ),
    (
        "probe.status",
        r#"{"probe": {"path": "/", "status": "200,200"}}"#,
    ),
    (
        "probe.status",
        r#"{"probe": {"tcp": true, "status": "200"}}"#,
    ),
    ("probe.pathh", r#"{"probe": {"path": "/", "pathh": "/x"}}"#),
];

/// The table above as JSON, and what is too long for it.
fn nonsense() -> Vec<(String, Value)> {
    let parsed = |text: &str| -> Value { serde_json::from_str(text).expect("the table is JSON") };
    let rows = NONSENSE.iter().map(|(field, text)| (*field, parsed(text)));
    let long = [
        (
            "probe.path",
            json!({ "path": format!("/{}", "x".repeat(2_048)) }),
        ),
        (
            "probe.host",
            json!({ "path": "/", "host": "a".repeat(256) }),
        ),
    ];
    rows.chain(long.map(|(field, probe)| (field, json!({ "probe": probe }))))
        .map(|(field, policy)| (format!("policy.{field}"), policy))
        .collect()
}

#[test]
fn nonsense_is_refused_naming_the_field_and_changes_nothing() {
    let router = Router::start();
    let kept = json!({ "deadline": "9s" });
    router.pool("shop", &kept, &[]);
    let before = router.read("/v1/apps/shop").expect(200).json();
    for (field, policy) in nonsense() {
        let record = json!({ "domains": ["shop.example"], "policy": policy });
        let answer = router.put("/v1/apps/shop", &record);
        let told = problem(&answer, 400);
        assert_eq!(told["field"], field, "{policy}: {told}");
    }
    let after = router.read("/v1/apps/shop").expect(200).json();
    assert_eq!(before, after);
}

#[test]
fn nonsense_in_an_import_costs_only_its_own_line() {
    let router = Router::start();
    let mut text = String::new();
    for (number, (_, policy)) in nonsense().iter().enumerate() {
        let line = json!({ "app": format!("bad-{number}"), "policy": policy });
        text.push_str(&format!("{line}\n"));
    }
    let good = json!({ "app": "good", "policy": { "hedge": "p95" } });
    text.push_str(&format!("{good}\n"));
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    let answer = request(router.api(), "POST", "/v1/import", &headers, &text);
    assert!(answer.status < 500, "{answer:?}");
    let list = router.read("/v1/apps").expect(200).text();
    assert!(list.contains("good") && !list.contains("bad-"), "{list}");
}

#[test]
fn what_was_said_is_read_back_and_survives_a_power_cut() {
    let router = Router::start();
    let policy = json!({
        "try_timeout": "2s", "deadline": "10s", "boot_wait": "0s", "slow_start": "90s",
        "hedge": "p99.9", "ejection": false,
        "retry_budget": { "percent": 0, "per_second": 3 },
        "probe": { "path": "/healthz", "host": "shop.example", "interval": "5s",
                   "timeout": "1s", "rise": 1, "fall": 7, "status": "200,300-399" },
    });
    router.pool("shop", &policy, &[]);
    let read = |router: &Router| router.read("/v1/apps/shop").expect(200).json()["policy"].clone();
    let said = read(&router);
    for (key, value) in policy.as_object().expect("an object") {
        assert_eq!(&said[key], value, "{key}");
    }
    let router = router.crash().start();
    assert_eq!(read(&router), said);
    for (hedge, tcp) in [
        ("off", json!({ "tcp": true })),
        ("auto", json!({ "path": "/" })),
        ("50ms", json!({ "tcp": true })),
    ] {
        let policy = json!({ "hedge": hedge, "probe": tcp });
        let record = json!({ "domains": ["shop.example"], "policy": policy });
        router.put("/v1/apps/shop", &record).expect(200);
        let said = read(&router);
        assert!(
            said["hedge"] == hedge || (hedge == "auto" && said["hedge"].is_null()),
            "{said}"
        );
    }
}

#[test]
fn a_changed_policy_takes_effect_on_a_running_app() {
    let router = Router::start();
    let (bad, good) = (Instance::start("bad"), Instance::start("good"));
    let none = json!({ "ejection": false, "retry_budget": { "percent": 0, "per_second": 0 } });
    router.pool("shop", &none, &[&bad, &good]);
    bad.does(Conduct::Answers(503, ""));
    let failed = (0..30)
        .filter(|number| router.get("shop", &format!("/{number}")).status == 503)
        .count();
    assert!(failed > 0, "nothing is retried");
    let record = json!({ "domains": ["shop.example"], "policy": {} });
    router.put("/v1/apps/shop?wait=active", &record).expect(200);
    // A budget fills in its time.
    eventually("thirty in a row are answered", || {
        let mut paths = (0..30).map(|number| format!("/now/{number}"));
        paths
            .all(|path| router.get("shop", &path).status == 200)
            .then_some(())
    });
}
