//! A backend as operators see it: what is registered, and how the edges judge
//! it.
//!
//! Never judges itself: health is what the edges report, merged by
//! [`BackendReport::absorb`], under what an operator ordered.

use serde_json::{Value, json};

use crate::feed::messages::{BackendRecord, BackendReport, Health, Standing};
use crate::observe::instant::rfc3339;

/// The reason of what an operator took out.
pub(super) const BY_OPERATOR: &str = "operator";

/// A registered backend; `live` is how edges see it, `None` if none told.
pub(super) fn view(backend: &BackendRecord, live: Option<&BackendReport>) -> Value {
    let mut view = json!({
        "id": backend.id,
        "address": backend.address,
        "weight": backend.weight,
        "release": backend.release,
        "standing": standing(backend.standing()),
        "lease_seconds": (backend.lease_seconds > 0).then_some(backend.lease_seconds),
        "in_flight": live.map_or(0, |live| live.in_flight),
        "requests": live.map_or(0, |live| live.requests),
        "failures": live.map_or(0, |live| live.failures),
        "health": live.map(|live| word(live.health())),
        "reason": live.map(|live| &live.reason).filter(|reason| !reason.is_empty()),
        "since": live.and_then(|live| moment(live.since_ms)),
        "ejections": live.map(|live| live.ejections),
        "latency_ms": live.and_then(|live| ms(live.latency_us)),
        "undisturbed_ms": live.and_then(|live| ms(live.undisturbed_us)),
        "limit": live.map(|live| live.limit).filter(|&limit| limit > 0),
        "share": live.map(share),
    });
    if backend.ejected {
        // Whatever the edges think of it, nothing new goes there.
        view["health"] = json!(word(Health::Ejected));
        view["reason"] = json!(BY_OPERATOR);
        view["since"] = json!(moment(backend.ejected_at_ms));
        view["share"] = json!(0.0);
    }
    view
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Suspect => "suspect",
        Standing::Draining => "draining",
    }
}

fn word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Ramping => "ramping",
        Health::Resting => "resting",
        Health::Ejected => "ejected",
        Health::Trial => "trial",
    }
}

fn moment(at_ms: u64) -> Option<String> {
    (at_ms > 0).then(|| rfc3339(at_ms))
}

/// Milliseconds; 0 is unknown.
fn ms(us: u64) -> Option<f64> {
    (us > 0).then(|| us as f64 / 1e3)
}

/// 1 is the full share of its weight.
fn share(live: &BackendReport) -> f64 {
    f64::from(live.share()) / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live() -> BackendReport {
        BackendReport {
            health: Health::Ramping.into(),
            reason: "connect_refused".into(),
            since_ms: 1_000_000_000_123,
            ejections: 2,
            latency_us: 5_250,
            share_permille: 325,
            limit: 12,
            undisturbed_us: 5_000,
            ..BackendReport::default()
        }
    }

    #[test]
    fn health_is_what_the_edges_report() {
        let view = view(&BackendRecord::default(), Some(&live()));
        assert_eq!(view["health"], "ramping");
        assert_eq!(view["reason"], "connect_refused");
        assert_eq!(view["since"], "2001-09-09T01:46:40.123Z");
        assert_eq!(view["ejections"], 2);
        assert_eq!(view["latency_ms"], 5.25);
        assert_eq!(view["undisturbed_ms"], 5.0);
        assert_eq!(view["limit"], 12);
        assert_eq!(view["share"], 0.325);
    }

    #[test]
    fn without_an_edge_nobody_judges() {
        let view = view(&BackendRecord::default(), None);
        for key in [
            "health",
            "reason",
            "since",
            "ejections",
            "latency_ms",
            "undisturbed_ms",
            "limit",
            "share",
        ] {
            assert_eq!(view[key], Value::Null, "{key}");
        }
    }

    #[test]
    fn a_backend_without_history_is_healthy_with_its_whole_share() {
        let view = view(&BackendRecord::default(), Some(&BackendReport::default()));
        assert_eq!(view["health"], "healthy");
        assert_eq!(view["share"], 1.0);
        assert_eq!(view["reason"], Value::Null);
        assert_eq!(view["since"], Value::Null);
    }

    #[test]
    fn an_operators_word_stands_over_the_edges() {
        let record = BackendRecord {
            ejected: true,
            ejected_at_ms: 1,
            ..BackendRecord::default()
        };
        for live in [None, Some(live())] {
            let view = view(&record, live.as_ref());
            assert_eq!(view["health"], "ejected");
            assert_eq!(view["reason"], "operator");
            assert_eq!(view["since"], "1970-01-01T00:00:00.001Z");
            assert_eq!(view["share"], 0.0);
        }
    }
}
