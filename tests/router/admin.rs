//! The admin port: health, readiness, metrics, processes, views.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::router::request;
use crate::harness::{Backend, Router, Setup, eventually};

#[test]
fn health_and_readiness_are_told() {
    let router = Router::start();
    router.admin_get("/healthz").expect(200);
    router.admin_get("/readyz").expect(200);
}

#[test]
fn readiness_follows_the_edge() {
    // With one that stands by, nobody would notice.
    let router = Router::with(&["edge.standby=\"off\""]);
    let edge = router.process("edge");
    crate::harness::processes::signal(edge, rustix::process::Signal::STOP);
    eventually("a stalled edge is not ready", || {
        (router.ready_status() != Some(200)).then_some(())
    });
    crate::harness::processes::signal(edge, rustix::process::Signal::CONT);
    router.wait_ready();
}

/// The value of a sample, if the text has it: `name{labels} value`.
fn sample(text: &str, start: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(start))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn metrics_count_requests() {
    let router = Router::start();
    let backend = Backend::named("counted");
    router.serve("shop", &[&backend]);
    for number in 0..25 {
        router.get("shop", &format!("/{number}")).expect(200);
    }
    router.get("nobody", "/").expect(404);
    let text = eventually("the scrape shows them", || {
        let answer = router.admin_get("/metrics").expect(200);
        let kind = answer.header("content-type").unwrap_or_default().to_owned();
        assert!(kind.starts_with("text/plain"), "{kind}");
        let text = answer.text();
        let sum: f64 = text
            .lines()
            .filter(|line| line.starts_with("portico_requests_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum();
        (sum >= 26.0).then_some(text)
    });
    let h30: f64 = text
        .lines()
        .filter(|line| line.starts_with("portico_") && line.contains("\"H30\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert!(h30 >= 1.0, "no series counts H30: {text}");
}

#[test]
fn metrics_are_well_formed_and_named_as_promised() {
    let router = Router::start();
    let backend = Backend::named("counted");
    router.serve("shop", &[&backend]);
    router.get("shop", "/").expect(200);
    let text = router.admin_get("/metrics").expect(200).text();
    let mut typed = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            typed.insert(rest.split(' ').next().unwrap_or_default().to_owned());
        }
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        assert!(line.starts_with("portico_"), "{line}");
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| {
                name.strip_suffix(end)
                    .filter(|family| typed.contains(*family))
            })
            .unwrap_or(name);
        assert!(typed.contains(family), "no TYPE for {line}");
        let value = line.rsplit(' ').next().unwrap_or_default();
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(typed.len() > 10, "{typed:?}");
}

#[test]
fn apps_metrics_are_bounded_whatever_the_number_of_apps() {
    let router = Router::start();
    let backend = Backend::named("busy");
    let lines: String = (0..300)
        .map(|number| {
            json!({ "app": format!("app-{number}"), "domains": [format!("app-{number}.example")],
                    "backends": { "web.1": { "address": backend.address().to_string() } } })
            .to_string()
                + "\n"
        })
        .collect();
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
    ];
    request(
        router.api(),
        "POST",
        "/v1/import?wait=active",
        &headers,
        &lines,
    )
    .expect(200);
    let mut client = router.client();
    for number in 0..300 {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: app-{number}.example\r\n\r\n"
        ));
        client.answer().expect(200);
    }
    let text = eventually("per-app series appear", || {
        let text = router.admin_get("/metrics").text();
        text.contains("app=\"").then_some(text)
    });
    let apps: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.split("app=\"").nth(1)?.split('"').next())
        .collect();
    assert!(apps.len() <= 129, "{} apps have series", apps.len());
    assert!(
        apps.contains("other"),
        "what is not shown is summed: {apps:?}"
    );
    let sum = |text: &str| -> f64 {
        text.lines()
            .filter(|line| line.starts_with("portico_app_requests_total"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    };
    eventually("no request is lost in the sum", || {
        (sum(&router.admin_get("/metrics").text()) >= 300.0).then_some(())
    });
}

#[test]
fn processes_are_shown() {
    let router = Router::start();
    for role in ["edge", "control"] {
        let pid = router.process(role);
        assert!(crate::harness::processes::descendants(router.pid()).contains(&pid));
    }
}

#[test]
fn apps_and_their_backends_are_shown() {
    let router = Router::start();
    let backend = Backend::named("seen");
    router.serve("shop", &[&backend]);
    router.get("shop", "/").expect(200);
    assert!(
        router
            .admin_get("/apps")
            .expect(200)
            .text()
            .contains("shop")
    );
    let app = router.admin_get("/apps/shop").expect(200).text();
    assert!(
        app.contains("web.1") && app.contains(&backend.address().to_string()),
        "{app}"
    );
    assert_eq!(router.admin_get("/apps/nobody").status, 404);
}

#[test]
fn settings_in_force_are_shown() {
    let router = Router::with(&["edge.threads=1"]);
    let text = router.admin_get("/config").expect(200).text();
    assert!(text.contains("threads"), "{text}");
    assert!(!text.contains(&router.token()), "no secret is shown");
}

#[test]
fn the_page_is_a_page() {
    let router = Router::start();
    let page = router.admin_get("/").expect(200);
    let kind = page.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/html"), "{kind}");
    assert!(page.text().contains("Portico"), "{}", page.text());
}

#[test]
fn events_are_streamed() {
    let router = Router::start();
    let mut client = crate::harness::Client::connect(router.admin());
    client.send(format!(
        "GET /events HTTP/1.1\r\nHost: {}\r\n\r\n",
        router.admin()
    ));
    let head = client.head().expect("an answer");
    assert_eq!(head.status, 200);
    assert!(
        head.header("content-type")
            .is_some_and(|kind| kind.starts_with("text/event-stream"))
    );
    crate::harness::processes::signal(router.process("edge"), rustix::process::Signal::KILL);
    let mut text = String::new();
    eventually("an event tells of the edge", || {
        text.push_str(&String::from_utf8_lossy(&client.take(1)));
        (text.contains("data:") && text.contains("edge")).then_some(())
    });
}

#[test]
fn reads_beyond_loopback_need_a_token() {
    let router = Setup::new().set("admin.listen=\"0.0.0.0:0\"").start();
    let admin = std::net::SocketAddr::from(([127, 0, 0, 1], router.admin().port()));
    let get = |path: &str, headers: &[(&str, &str)]| request(admin, "GET", path, headers, "");
    for path in ["/metrics", "/apps", "/processes", "/config"] {
        assert_eq!(get(path, &[]).status, 401, "{path}");
    }
    let bearer = format!("Bearer {}", router.token());
    get("/metrics", &[("Authorization", &bearer)]).expect(200);
    // A load balancer or a kubelet asks for these without a token.
    get("/healthz", &[]).expect(200);
    get("/readyz", &[]).expect(200);
}

#[test]
fn histograms_add_up() {
    let router = Router::start();
    let backend = Backend::named("timed");
    router.serve("shop", &[&backend]);
    for _ in 0..10 {
        router.get("shop", "/").expect(200);
    }
    eventually("a duration histogram counts them", || {
        let text = router.admin_get("/metrics").text();
        let name = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter(|line| line.ends_with(" histogram"))
            .filter_map(|line| line.split(' ').next())
            .find(|name| {
                name.ends_with("_seconds") && sample(&text, &format!("{name}_count")) >= Some(10.0)
            })?;
        let sum = sample(&text, &format!("{name}_sum"))?;
        assert!(sum > 0.0 && sum < 60.0, "{name}: {sum}");
        Some(())
    });
}
