//! What the admin port shows of backends, events and counters.
//!
//! Owns the reading of those views, in one place for all tests.

use std::net::SocketAddr;

use serde_json::{Map, Value, json};

use super::router::request;
use super::{Answer, Instance, Router, eventually};

impl Router {
    /// Registers an app at `{app}.example` with these instances, `web.1` and so
    /// on, and returns when it is routed. All at once, so that none is a
    /// newcomer among the others.
    #[track_caller]
    pub fn pool(&self, app: &str, policy: &Value, instances: &[&Instance]) {
        let addresses: Vec<_> = instances.iter().map(|it| it.address()).collect();
        self.pool_at(app, policy, &addresses);
    }

    /// As [`Router::pool`], by address.
    #[track_caller]
    pub fn pool_at(&self, app: &str, policy: &Value, addresses: &[SocketAddr]) {
        let ids = (1..).map(|number| format!("web.{number}"));
        let backends: Map<String, Value> = ids
            .zip(addresses)
            .map(|(id, address)| (id, json!({ "address": address.to_string() })))
            .collect();
        let line = json!({ "app": app, "domains": [format!("{app}.example")],
                           "policy": policy, "backends": backends });
        let bearer = format!("Bearer {}", self.token());
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/x-ndjson"),
        ];
        let path = "/v1/import?wait=active";
        let answer = request(self.api(), "POST", path, &headers, &line.to_string());
        let told = answer.expect(200).json();
        assert_eq!(told["errors"], json!([]), "{told}");
    }

    /// Registers or moves one backend, and returns when it is routed.
    #[track_caller]
    pub fn place(&self, app: &str, id: &str, address: SocketAddr) {
        let path = format!("/v1/apps/{app}/backends/{id}?wait=active");
        let answer = self.put(&path, &json!({ "address": address.to_string() }));
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    }

    /// A backend as `GET /apps/{app}` shows it, once an edge tells of it: on a
    /// busy machine none may have answered control in time.
    #[track_caller]
    pub fn backend(&self, app: &str, id: &str) -> Value {
        eventually(&format!("an edge tells of {id}"), || {
            let view = self.admin_get(&format!("/apps/{app}")).expect(200).json();
            let backends = view["backends"].as_array().expect("`backends` is a list");
            let found = backends.iter().find(|backend| backend["id"] == id);
            let found = found.unwrap_or_else(|| panic!("no backend {id} in {view}"));
            (!found["health"].is_null()).then(|| found.clone())
        })
    }

    /// A backend's health: `healthy`, `ramping`, `resting`, `ejected`, `trial`.
    #[track_caller]
    pub fn health(&self, app: &str, id: &str) -> String {
        let view = self.backend(app, id);
        let health = view["health"].as_str();
        health
            .unwrap_or_else(|| panic!("no health in {view}"))
            .to_owned()
    }

    /// Waits until a backend has one of these states; gives its view.
    #[track_caller]
    pub fn wait_health(&self, app: &str, id: &str, states: &[&str]) -> Value {
        eventually(&format!("{id} is one of {states:?}"), || {
            let view = self.backend(app, id);
            let is = view["health"]
                .as_str()
                .is_some_and(|it| states.contains(&it));
            is.then_some(view)
        })
    }

    /// Every event of this kind, oldest first.
    #[track_caller]
    pub fn events(&self, kind: &str) -> Vec<Value> {
        let accept = [("Accept", "application/json")];
        let answer = request(
            self.admin(),
            "GET",
            "/events?limit=1000&follow=false",
            &accept,
            "",
        );
        let body = answer.expect(200).json();
        let events = body["events"].as_array().expect("`events` is a list");
        let of_kind = events.iter().filter(|event| event["kind"] == kind);
        of_kind.cloned().collect()
    }

    /// Waits for an event of this kind about this backend; gives the last one.
    #[track_caller]
    pub fn wait_event(&self, kind: &str, app: &str, backend: &str) -> Value {
        eventually(&format!("an event {kind} of {backend}"), || {
            let about = |event: &Value| event["app"] == app && event["backend"] == backend;
            self.events(kind).into_iter().rfind(about)
        })
    }

    /// The sum of the samples of this metric whose labels contain `label`.
    #[track_caller]
    pub fn counted(&self, metric: &str, label: &str) -> f64 {
        let text = self.admin_get("/metrics").expect(200).text();
        let sample = |line: &str| -> Option<f64> {
            let rest = line.strip_prefix(metric)?;
            let is = rest.starts_with(['{', ' ']) && rest.contains(label);
            is.then(|| rest.rsplit(' ').next()?.parse().ok())?
        };
        text.lines().filter_map(sample).sum()
    }

    /// An operator's order on the admin port, with the token.
    #[track_caller]
    pub fn order(&self, path: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        let headers = [("Authorization", bearer.as_str())];
        request(self.admin(), "POST", path, &headers, "")
    }

    /// The tries of every request logged so far whose path starts so.
    pub fn tries(&self, start: &str) -> Vec<u32> {
        let log = self.log();
        let lines = log
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines
            .map(super::logs::logfmt)
            .filter(|line| line.get("path").is_some_and(|path| path.starts_with(start)))
            .map(|line| line["tries"].parse().expect("tries must be a number"))
            .collect()
    }
}
