//! `kill -9` of edge and control, alone and together, at any moment under
//! registrations: nobody is turned away, and what was acknowledged is there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Backend, Client, Router, eventually, pause, processes};

/// How long the killing goes on.
const KILLING: Duration = Duration::from_secs(12);

/// A small generator: which moments and which victims differ from run to run,
/// and none is left out for long.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Processes of this role, those that stand by among them; `None`: control
/// does not answer just now.
fn pids(router: &Router, role: &str) -> Option<Vec<u32>> {
    let table = router.shown("/processes")?;
    let rows = table["processes"].as_array()?;
    let of_role = rows.iter().filter(|row| row["role"] == role);
    let pids = of_role.filter_map(|row| row["pid"].as_u64());
    Some(pids.filter(|&pid| pid > 0).map(|pid| pid as u32).collect())
}

/// Registers apps one after another until told to stop; what was acknowledged,
/// by its revision.
fn register(
    api: SocketAddr,
    token: &str,
    backend: SocketAddr,
    stop: &AtomicBool,
) -> BTreeMap<String, u64> {
    let mut acknowledged = BTreeMap::new();
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let app = format!("app-{number}");
        let backends = json!({ "web.1": { "address": backend.to_string() } });
        let domains = [format!("{app}.example")];
        let line = json!({ "app": app, "domains": domains, "backends": backends }).to_string();
        let request = format!(
            "POST /v1/import HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/x-ndjson\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{line}",
            line.len()
        );
        // Refused, never: the listener is the supervisor's. Cut off, surely.
        let mut client = Client::connect(api);
        client.try_send(request);
        match client.try_answer_to("POST") {
            Ok(answer) if answer.status == 200 => {
                let report = answer.json();
                assert_eq!(report["failed"], 0, "{report}");
                acknowledged.insert(app, report["revision"].as_u64().expect("a number"));
                number += 1;
            }
            _ => pause(Duration::from_millis(2)),
        }
    }
    acknowledged
}

fn registered(router: &Router) -> BTreeMap<String, Value> {
    let export = eventually("an export", || {
        let answer = router.read("/v1/export");
        (answer.status == 200).then_some(answer)
    });
    let lines = export.text();
    let apps = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("a line must be JSON");
        (line["app"].as_str().expect("a name").to_owned(), line)
    });
    apps.collect()
}

#[test]
fn whoever_is_killed_and_when_nothing_acknowledged_is_lost() {
    let router = Router::with(&["edge.standby=true"]);
    let backend = Backend::named("there");
    router.serve("shop", &[&backend]);
    let (token, api, stop) = (router.token(), router.api(), AtomicBool::new(false));
    let seed = u64::from(std::process::id());
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
    let (acknowledged, answered) = std::thread::scope(|scope| {
        let registering = scope.spawn(|| register(api, &token, backend.address(), &stop));
        let asking = scope.spawn(|| {
            let mut answered = 0;
            while !stop.load(Ordering::Relaxed) {
                // A connection is always taken; its request may be lost with the edge.
                let mut client = Client::connect(router.http());
                client
                    .try_send("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
                if let Ok(answer) = client.try_answer_to("GET") {
                    assert_eq!(answer.status, 200, "{answer:?}");
                    answered += 1;
                }
            }
            answered
        });
        let until = Instant::now() + KILLING;
        while Instant::now() < until {
            pause(Duration::from_millis(dice.roll(900)));
            let victims: &[&str] =
                [&["edge"][..], &["control"], &["edge", "control"]][dice.roll(3) as usize];
            let found: Vec<u32> = victims
                .iter()
                .filter_map(|role| pids(&router, role))
                .filter(|pids| !pids.is_empty())
                .map(|pids| pids[dice.roll(pids.len() as u64) as usize])
                .collect();
            for pid in found {
                processes::signal(pid, Signal::KILL);
            }
        }
        stop.store(true, Ordering::Relaxed);
        (
            registering.join().expect("who registers must not fail"),
            asking.join().expect("who asks must not fail"),
        )
    });
    assert!(
        acknowledged.len() > 20,
        "seed {seed}: {} came through",
        acknowledged.len()
    );
    assert!(answered > 20, "seed {seed}: {answered} were answered");
    router.wait_ready();
    let check = |router: &Router| {
        let there = registered(router);
        for (app, revision) in &acknowledged {
            assert!(
                there.contains_key(app),
                "seed {seed}: {app} of revision {revision} is lost"
            );
        }
        for app in acknowledged.keys() {
            eventually("it is routed", || {
                (router.get(app, "/").status == 200).then_some(())
            });
        }
    };
    check(&router);
    // The machine goes down at last.
    check(&router.crash().start());
}
