//! `top`: the router at work, from two readings of `/overview`.

use std::io::{IsTerminal, stdout};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::text::{Lean, Table, age, bytes, count, print, print_json, seconds};
use super::{CommandError, Top};
use crate::observe::histogram::quantile;

const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// `portico top`: until interrupted; once if asked to, or if nobody looks.
pub(super) fn top(client: &Client<'_>, args: &Top) -> Result<(), CommandError> {
    let once = args.once || !stdout().is_terminal();
    let mut before = client.admin("/overview")?;
    if once && client.json() {
        return print_json(&before);
    }
    loop {
        wait(Duration::from_secs_f64(args.interval));
        let now = client.admin("/overview")?;
        if client.json() {
            print_json(&now)?;
        } else if once {
            return print(&screen(&before, &now));
        } else {
            print(&format!("{CLEAR}{}", screen(&before, &now)))?;
        }
        before = now;
    }
}

fn wait(interval: Duration) {
    let deadline = Instant::now() + interval;
    while let Some(left) = deadline
        .checked_duration_since(Instant::now())
        .filter(|l| !l.is_zero())
    {
        thread::park_timeout(left);
    }
}

/// Two readings and the time between them.
struct Between<'a> {
    before: &'a Value,
    now: &'a Value,
    elapsed_seconds: f64,
}

impl Between<'_> {
    /// A counter's rate; one that fell began anew with its process.
    fn rate(&self, path: &str) -> f64 {
        let at = |value: &Value| value.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
        risen(at(self.now), at(self.before)) / self.elapsed_seconds
    }

    /// The rate of all counters of an object.
    fn sum_rate(&self, path: &str) -> f64 {
        let keys = self.now.pointer(path).and_then(Value::as_object);
        let rates = keys
            .into_iter()
            .flatten()
            .map(|(key, _)| self.rate(&format!("{path}/{key}")));
        rates.fold(0.0, |sum, rate| sum + rate)
    }

    fn gauge(&self, path: &str) -> f64 {
        self.now
            .pointer(path)
            .and_then(Value::as_f64)
            .unwrap_or(0.0)
    }

    fn quantile(&self, histogram: &str, share: f64) -> Option<f64> {
        let buckets = |value: &Value| -> Vec<u64> {
            let buckets = value.pointer(&format!("/latency/{histogram}/buckets"));
            let buckets = buckets.and_then(Value::as_array);
            buckets
                .into_iter()
                .flatten()
                .map(|count| count.as_u64().unwrap_or(0))
                .collect()
        };
        let (now, before) = (buckets(self.now), buckets(self.before));
        let then = before.into_iter().chain(std::iter::repeat(0));
        let since: Vec<u64> = now
            .into_iter()
            .zip(then)
            .map(|(now, then)| now.checked_sub(then).unwrap_or(now))
            .collect();
        quantile(&since, share)
    }
}

fn risen(now: f64, before: f64) -> f64 {
    if now >= before { now - before } else { now }
}

fn screen(before: &Value, now: &Value) -> String {
    let ms = |value: &Value| value["at_ms"].as_f64().unwrap_or(0.0);
    let elapsed_seconds = ((ms(now) - ms(before)) / 1e3).max(0.001);
    let between = Between {
        before,
        now,
        elapsed_seconds,
    };
    let mut out = heading(&between);
    out.push_str(&overload(&between));
    for part in [processes(&between), codes(&between), apps(&between)] {
        if !part.is_empty() {
            out.push('\n');
            out.push_str(&part);
        }
    }
    out
}

fn heading(between: &Between<'_>) -> String {
    let now = between.now;
    let ready = if now["ready"].as_bool() == Some(true) {
        "ready"
    } else {
        "NOT READY"
    };
    let active = now["active_revision"]
        .as_u64()
        .map_or("none".into(), |active| active.to_string());
    let rate = between.sum_rate("/traffic/requests");
    let failed = between.rate("/traffic/requests/5xx");
    let share = if rate > 0.0 {
        failed / rate * 100.0
    } else {
        0.0
    };
    let latency = |histogram, share| seconds(between.quantile(histogram, share));
    format!(
        "portico {}  {ready}  revision {} (active {})  {} apps, {} backends, {} edges\n\
         requests {}/s  5xx {:.2}%  p50 {}  p99 {}  app's first byte p50 {}  p99 {}\n\
         in flight {}  queued {}  connections {}  idle backend connections {}  sent {}/s  received {}/s\n",
        now["version"].as_str().unwrap_or("?"),
        now["revision"],
        active,
        now["registered"]["apps"],
        now["registered"]["backends"],
        now["edges"]["connected"],
        count(rate),
        share,
        latency("total", 0.5),
        latency("total", 0.99),
        latency("first_byte", 0.5),
        latency("first_byte", 0.99),
        count(between.gauge("/traffic/in_flight")),
        count(between.gauge("/traffic/queued")),
        count(between.gauge("/traffic/connections")),
        count(between.gauge("/traffic/idle_backend_connections")),
        bytes(between.rate("/traffic/sent_bytes")),
        bytes(between.rate("/traffic/received_bytes")),
    )
}

/// Nothing while the edge can do what it is asked for.
fn overload(between: &Between<'_>) -> String {
    let threads = between.gauge("/traffic/saturated_threads");
    let shed = between.sum_rate("/traffic/shed");
    if threads == 0.0 && shed == 0.0 {
        return String::new();
    }
    format!(
        "SATURATED  data threads {}  waiting for their turn {}  refused {}/s\n",
        count(threads),
        count(between.gauge("/traffic/gated")),
        count(shed),
    )
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn processes(between: &Between<'_>) -> String {
    let mut table = Table::new(&[
        ("PROCESS", Lean::Left),
        ("PID", Lean::Right),
        ("STATE", Lean::Left),
        ("UP", Lean::Right),
        ("CPU", Lean::Right),
        ("MEMORY", Lean::Right),
        ("RESTARTS", Lean::Right),
    ]);
    let at_ms = between.now["at_ms"].as_u64().unwrap_or(0);
    for process in list(between.now, "processes") {
        let earlier = list(between.before, "processes").iter();
        let then = earlier
            .filter(|other| other["pid"] == process["pid"])
            .find_map(cpu_seconds);
        let used = cpu_seconds(process).zip(then).map(|(now, then)| now - then);
        let started = process["started_at_ms"].as_u64().unwrap_or(at_ms);
        table.row([
            text(&process["role"]),
            text(&process["pid"]),
            text(&process["state"]),
            age(at_ms.saturating_sub(started)),
            used.map_or("-".into(), |used| {
                format!("{:.0}%", used / between.elapsed_seconds * 100.0)
            }),
            process
                .pointer("/usage/resident_bytes")
                .and_then(Value::as_f64)
                .map_or("-".into(), bytes),
            text(&process["restarts"]),
        ]);
    }
    if list(between.now, "processes").is_empty() {
        String::new()
    } else {
        table.text()
    }
}

fn cpu_seconds(process: &Value) -> Option<f64> {
    process.pointer("/usage/cpu_seconds")?.as_f64()
}

fn codes(between: &Between<'_>) -> String {
    let codes = between
        .now
        .pointer("/traffic/codes")
        .and_then(Value::as_object);
    let mut rows: Vec<(String, f64, f64)> = codes
        .into_iter()
        .flatten()
        .map(|(code, total)| {
            let rate = between.rate(&format!("/traffic/codes/{code}"));
            (code.clone(), rate, total.as_f64().unwrap_or(0.0))
        })
        .filter(|(_, _, total)| *total > 0.0)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.total_cmp(&a.2)));
    let mut table = Table::new(&[
        ("CODE", Lean::Left),
        ("PER SECOND", Lean::Right),
        ("TOTAL", Lean::Right),
    ]);
    for (code, rate, total) in rows {
        table.row([code, count(rate), count(total)]);
    }
    table.text()
}

fn apps(between: &Between<'_>) -> String {
    let mut rows: Vec<(f64, [String; 6])> = Vec::new();
    for app in list(between.now, "apps") {
        let then = list(between.before, "apps")
            .iter()
            .find(|other| other["app"] == app["app"]);
        let number = |path: &str| {
            let at = |value: &Value| value.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
            (at(app), then.map_or(0.0, at))
        };
        let since = |path: &str| {
            let (now, before) = number(path);
            risen(now, before)
        };
        let (requests, duration) = (since("/requests"), since("/duration_seconds"));
        let rate = requests / between.elapsed_seconds;
        let mean = (requests > 0.0).then(|| duration / requests);
        let row = [
            text(&app["app"]),
            count(rate),
            seconds(mean),
            count(since("/responses/5xx") / between.elapsed_seconds),
            count(number("/in_flight").0),
            count(number("/requests").0),
        ];
        rows.push((rate, row));
    }
    if rows.is_empty() {
        return String::new();
    }
    rows.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut table = Table::new(&[
        ("APP", Lean::Left),
        ("REQUESTS/S", Lean::Right),
        ("MEAN", Lean::Right),
        ("5XX/S", Lean::Right),
        ("IN FLIGHT", Lean::Right),
        ("TOTAL", Lean::Right),
    ]);
    for (_, row) in rows {
        table.row(row);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::observe::histogram::{BUCKETS, bucket};

    fn reading(at_ms: u64, requests: u64, cpu: f64) -> Value {
        let mut buckets = vec![0u64; BUCKETS];
        buckets[bucket(2_000)] = requests;
        json!({
            "at_ms": at_ms, "version": "0.1.0", "revision": 7, "active_revision": 7, "ready": true,
            "registered": {"apps": 3, "backends": 4}, "edges": {"connected": 1},
            "processes": [{"role": "edge", "pid": 9, "state": "ready", "started_at_ms": 0,
                "restarts": 1, "usage": {"cpu_seconds": cpu, "resident_bytes": 1048576}}],
            "traffic": {"requests": {"2xx": requests, "5xx": 0}, "codes": {"H12": requests / 100}},
            "latency": {"total": {"buckets": buckets}},
            "apps": [{"app": "shop", "requests": requests, "duration_seconds": requests as f64 * 0.002,
                "responses": {"5xx": 0}, "in_flight": 2}],
        })
    }

    #[test]
    fn overload_shows_while_there_is_any() {
        let (before, mut now) = (reading(1_000, 1, 1.0), reading(2_000, 2, 2.0));
        assert!(!screen(&before, &now).contains("SATURATED"));
        now["traffic"]["saturated_threads"] = json!(1);
        now["traffic"]["gated"] = json!(7);
        now["traffic"]["shed"] = json!({ "processor": 30 });
        let screen = screen(&before, &now);
        let line = "SATURATED  data threads 1  waiting for their turn 7  refused 30/s";
        assert!(screen.contains(line), "{screen}");
    }

    #[test]
    fn two_readings_make_rates() {
        let screen = screen(&reading(1_000, 1_000, 1.0), &reading(3_000, 3_000, 2.0));
        for part in [
            "requests 1000/s",
            "5xx 0.00%",
            "p50 1.9",
            "ready",
            "revision 7",
        ] {
            assert!(screen.contains(part), "{part} is not in\n{screen}");
        }
        let row = |start: &str| {
            let line = screen.lines().find(|line| line.starts_with(start)).unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            row("edge"),
            ["edge", "9", "ready", "3s", "50%", "1.0", "MiB", "1"]
        );
        assert_eq!(row("H12"), ["H12", "10", "30"]);
        assert_eq!(
            row("shop"),
            ["shop", "1000", "2.00", "ms", "0", "2", "3000"]
        );
    }

    #[test]
    fn a_counter_that_fell_began_anew() {
        let screen = screen(&reading(1_000, 5_000, 1.0), &reading(2_000, 100, 0.1));
        assert!(screen.contains("requests 100/s"), "{screen}");
    }
}
