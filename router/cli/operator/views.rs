//! `apps`, `app`, `backends`, `drain`.

use serde_json::Value;

use super::client::{Client, Port, segment};
use super::text::{Lean, Table, count, print, print_json, seconds, shown};
use super::{Apps, CommandError, Drain};

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
        ("WEIGHT", Lean::Right),
        ("RELEASE", Lean::Left),
        ("LEASE", Lean::Right),
        ("IN FLIGHT", Lean::Right),
        ("REQUESTS", Lean::Right),
        ("FAILURES", Lean::Right),
    ]);
    for backend in backends.as_array().map_or(&[][..], Vec::as_slice) {
        let lease = backend["lease_seconds"].as_u64();
        table.row([
            text(&backend["id"]),
            text(&backend["address"]),
            text(&backend["standing"]),
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

/// `portico drain APP BACKEND`
pub(super) fn drain(client: &Client<'_>, args: &Drain) -> Result<(), CommandError> {
    let mut path = format!(
        "/apps/{}/backends/{}/drain",
        segment(&args.app),
        segment(&args.backend)
    );
    if let Some(patience) = &args.patience {
        path.push_str(&format!("?drain={}", segment(patience)));
    }
    let answer = client.post(Port::Admin, &path, None)?;
    if client.json() {
        return print_json(&answer);
    }
    print(&format!(
        "{} of {} takes no new requests; it is gone once its last is answered, at the latest in {} (revision {})\n",
        shown(&args.backend),
        shown(&args.app),
        text(&answer["drain"]),
        answer["revision"],
    ))
}

/// A string without its quotes; anything else as JSON writes it.
fn text(value: &Value) -> String {
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

    #[test]
    fn backends_without_a_lease_say_so() {
        let table = backend_table(&json!([{
            "id": "web.1", "address": "127.0.0.1:9001", "standing": "active", "weight": 100,
            "release": "", "lease_seconds": null, "in_flight": 2, "requests": 10, "failures": 0,
        }]));
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            [
                "web.1",
                "127.0.0.1:9001",
                "active",
                "100",
                "-",
                "2",
                "10",
                "0"
            ]
        );
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
