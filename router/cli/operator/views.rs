//! `apps`, `app`, `backends`: what is registered and how it does.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::client::{Client, segment};
use super::text::{Lean, Table, age, count, print, print_json, seconds, shown};
use super::{Apps, CommandError};
use crate::observe::instant::unix_ms;

/// Apps asked for at once.
const PAGE: usize = 1_000;
/// Hosts named in a list of apps; the others are counted.
const HOSTS_SHOWN: usize = 3;

/// `portico apps`: page by page, so that a million apps pass through. With
/// `--json` an app a line.
pub(super) fn apps(client: &Client<'_>, args: &Apps) -> Result<(), CommandError> {
    let mut left = args.limit.unwrap_or(usize::MAX);
    let mut after = args.after.clone();
    let mut first = true;
    while left > 0 {
        let limit = left.min(PAGE);
        let page = client.admin(&format!("/apps?limit={limit}&after={}", segment(&after)))?;
        let apps = page["apps"].as_array().map_or(&[][..], Vec::as_slice);
        left -= apps.len().min(left);
        if client.json() {
            apps.iter().try_for_each(print_json)?;
        } else if !apps.is_empty() || first {
            print(&app_table(apps, first))?;
        }
        first = false;
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return Ok(()),
        }
    }
    Ok(())
}

fn app_table(apps: &[Value], headed: bool) -> String {
    let mut table = Table::new(&[
        ("APP", Lean::Left),
        ("BACKENDS", Lean::Right),
        ("REVISION", Lean::Right),
        ("DOMAINS", Lean::Left),
    ]);
    for app in apps {
        let backends = format!("{}/{}", app["active_backends"], app["backends"]);
        table.row([
            text(&app["app"]),
            backends,
            app["revision"].to_string(),
            hosts(app, HOSTS_SHOWN),
        ]);
    }
    let text = table.text();
    match text.split_once('\n') {
        Some((_, rest)) if !headed => rest.to_owned(),
        _ => text,
    }
}

fn hosts(app: &Value, most: usize) -> String {
    let hosts = app["domains"].as_array().map_or(&[][..], Vec::as_slice);
    let mut named: Vec<String> = hosts.iter().take(most).map(text).collect();
    if hosts.len() > most {
        named.push(format!("and {} more", hosts.len() - most));
    }
    named.join(" ")
}

/// `portico app NAME`
pub(super) fn app(client: &Client<'_>, name: &str) -> Result<(), CommandError> {
    let app = client.admin(&format!("/apps/{}", segment(name)))?;
    if client.json() {
        return print_json(&app);
    }
    let mut out = String::new();
    let mut line = |key: &str, value: &str| out.push_str(&format!("{key:<10}{}\n", shown(value)));
    line("app", &text(&app["app"]));
    line("revision", &app["revision"].to_string());
    line("domains", &hosts(&app, usize::MAX));
    line("policy", &pairs(&app["policy"], "defaults"));
    let traffic = &app["traffic"];
    let number = |key: &str| traffic[key].as_f64().unwrap_or(0.0);
    let requests = number("requests");
    let mean = (requests > 0.0).then(|| number("duration_seconds") / requests);
    line(
        "requests",
        &format!("{} (mean {})", count(requests), seconds(mean)),
    );
    line("responses", &pairs(&traffic["responses"], "none"));
    line("codes", &pairs(&traffic["codes"], "none"));
    line(
        "now",
        &format!(
            "{} in flight, {} queued",
            number("in_flight"),
            number("queued")
        ),
    );
    let edges = &app["edges"];
    if edges["asked"] != edges["answered"] {
        let missing = format!("{} of {} edges answered", edges["answered"], edges["asked"]);
        line("seen by", &missing);
    }
    out.push('\n');
    out.push_str(&backend_table(&app["backends"]));
    print(&out)
}

/// `portico backends NAME`
pub(super) fn backends(client: &Client<'_>, name: &str) -> Result<(), CommandError> {
    let app = client.admin(&format!("/apps/{}", segment(name)))?;
    if client.json() {
        return print_json(&app["backends"]);
    }
    print(&backend_table(&app["backends"]))
}

fn backend_table(backends: &Value) -> String {
    let mut table = Table::new(&[
        ("BACKEND", Lean::Left),
        ("ADDRESS", Lean::Left),
        ("STANDING", Lean::Left),
        ("HEALTH", Lean::Left),
        ("REASON", Lean::Left),
        ("SINCE", Lean::Right),
        ("EJECTIONS", Lean::Right),
        ("LATENCY", Lean::Right),
        ("SHARE", Lean::Right),
        ("WEIGHT", Lean::Right),
        ("RELEASE", Lean::Left),
        ("LEASE", Lean::Right),
        ("IN FLIGHT", Lean::Right),
        ("REQUESTS", Lean::Right),
        ("FAILURES", Lean::Right),
    ]);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now_ms.map_or(0, |since| since.as_millis() as u64);
    for backend in backends.as_array().map_or(&[][..], Vec::as_slice) {
        let lease = backend["lease_seconds"].as_u64();
        let since = backend["since"].as_str().and_then(unix_ms);
        let latency = backend["latency_ms"].as_f64();
        let share = backend["share"].as_f64();
        table.row([
            text(&backend["id"]),
            text(&backend["address"]),
            text(&backend["standing"]),
            known(&backend["health"]),
            known(&backend["reason"]),
            since.map_or("-".into(), |at_ms| age(now_ms.saturating_sub(at_ms))),
            known(&backend["ejections"]),
            seconds(latency.map(|ms| ms / 1e3)),
            share.map_or("-".into(), |share| format!("{:.0}%", share * 100.0)),
            text(&backend["weight"]),
            text(&backend["release"]),
            lease.map_or("-".into(), |seconds| format!("{seconds}s")),
            text(&backend["in_flight"]),
            text(&backend["requests"]),
            text(&backend["failures"]),
        ]);
    }
    table.text()
}

/// As [`text`]; `-` for what nobody could say.
fn known(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        value => text(value),
    }
}

/// A string without its quotes; anything else as JSON writes it.
pub(super) fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// `key=value key=value`, leaving zeros out.
fn pairs(value: &Value, none: &str) -> String {
    let pairs = value.as_object().into_iter().flatten();
    let pairs = pairs.filter(|(_, value)| value.as_f64() != Some(0.0) || !value.is_u64());
    let text: Vec<String> = pairs
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if text.is_empty() {
        none.to_owned()
    } else {
        text.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn apps_stand_under_one_heading() {
        let apps = [json!({
            "app": "shop", "active_backends": 1, "backends": 2, "revision": 7,
            "domains": ["a", "b", "c", "d"],
        })];
        assert_eq!(
            app_table(&apps, true),
            "APP   BACKENDS  REVISION  DOMAINS\nshop       1/2         7  a b c and 1 more\n"
        );
        assert_eq!(
            app_table(&apps, false),
            "shop       1/2         7  a b c and 1 more\n"
        );
    }

    fn row(backend: &Value) -> Vec<String> {
        let table = backend_table(&json!([backend]));
        let cells = table.lines().nth(1).unwrap().split_whitespace();
        cells.map(str::to_owned).collect()
    }

    #[test]
    fn what_nobody_can_say_is_a_dash() {
        let cells = row(&json!({
            "id": "web.1", "address": "127.0.0.1:9001", "standing": "active", "weight": 100,
            "release": "v1", "lease_seconds": null, "in_flight": 2, "requests": 10, "failures": 0,
            "health": null, "reason": null, "since": null, "ejections": null, "latency_ms": null,
            "share": null,
        }));
        let wanted = "web.1 127.0.0.1:9001 active - - - - - - 100 v1 - 2 10 0";
        assert_eq!(cells.join(" "), wanted);
    }

    #[test]
    fn a_backend_out_of_rotation_shows_why_and_for_how_long() {
        let at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64
            - 7_200_500;
        let cells = row(&json!({
            "id": "web.1", "address": "127.0.0.1:9001", "standing": "active", "weight": 100,
            "release": "v1", "lease_seconds": 30, "in_flight": 0, "requests": 10, "failures": 4,
            "health": "ejected", "reason": "connect_refused",
            "since": crate::observe::instant::rfc3339(at_ms), "ejections": 3, "latency_ms": 5.25,
            "share": 0.325,
        }));
        let wanted = "web.1 127.0.0.1:9001 active ejected connect_refused 2h 3 5.25 ms 32% 100 v1 \
            30s 0 10 4";
        assert_eq!(cells.join(" "), wanted);
    }

    #[test]
    fn policies_show_zeros_that_were_set() {
        assert_eq!(pairs(&json!({"2xx": 3, "5xx": 0}), "none"), "2xx=3");
        assert_eq!(
            pairs(
                &json!({"idle_timeout": "5s", "maintenance": false}),
                "defaults"
            ),
            "idle_timeout=5s maintenance=false"
        );
        assert_eq!(pairs(&json!({}), "defaults"), "defaults");
    }
}
