//! `events`: what happened, a line each.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use super::client::{Client, Port};
use super::text::{print, shown};
use super::{CommandError, Events};
use crate::observe::instant::rfc3339;

/// `portico events [-f]`
pub(super) fn events(client: &Client<'_>, args: &Events) -> Result<(), CommandError> {
    let path = format!("/events?limit={}&follow={}", args.limit, args.follow);
    let stream = BufReader::new(client.stream(Port::Admin, &path)?);
    let broken = |error| CommandError::Failed(format!("the events broke off: {error}"));
    for line in stream.lines() {
        // One event is one `data:` line: the router sends JSON, which has none
        // within. Other fields say nothing that is not in it.
        let line = line.map_err(broken)?;
        let Some(data) = line.strip_prefix("data:") else {
            continue;
        };
        if client.json() {
            print(&format!("{}\n", data.trim_start()))?;
        } else if let Ok(event) = serde_json::from_str(data) {
            print(&told(&event))?;
        }
    }
    if args.follow {
        return Err(CommandError::Failed(
            "the events ended: control stopped".into(),
        ));
    }
    Ok(())
}

fn told(event: &Value) -> String {
    if let Some(missed) = event["missed"].as_u64() {
        return format!("... {missed} events were missed\n");
    }
    let text = |key: &str| shown(event[key].as_str().unwrap_or_default());
    let mut line = format!(
        "{} {}",
        rfc3339(event["at_ms"].as_u64().unwrap_or(0)),
        text("kind")
    );
    for (key, value) in [("app", text("app")), ("backend", text("backend"))] {
        if !value.is_empty() {
            line.push_str(&format!(" {key}={value}"));
        }
    }
    format!("{line}: {}\n", text("text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = json!({
            "at_ms": 0, "kind": "lease_expired", "app": "shop", "backend": "web.1", "text": "No\nheartbeat.",
        });
        assert_eq!(
            told(&event),
            "1970-01-01T00:00:00.000Z lease_expired app=shop backend=web.1: No?heartbeat.\n"
        );
        assert_eq!(told(&json!({"missed": 3})), "... 3 events were missed\n");
    }
}
