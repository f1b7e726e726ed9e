//! `drain`, `eject`, `readmit`: what an operator orders about a backend; and
//! `confirm-shrink`, about the whole table.

use serde_json::Value;

use super::client::{Client, Port, segment};
use super::text::{print, print_json, shown};
use super::views::text;
use super::{Backend, CommandError, Drain};

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
    let answer = client.post(Port::Admin, &path)?;
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

/// `portico eject APP BACKEND`
pub(super) fn eject(client: &Client<'_>, args: &Backend) -> Result<(), CommandError> {
    let answer = order(client, args, "eject")?;
    if client.json() {
        return print_json(&answer);
    }
    let mut said = format!(
        "{} of {} takes no new requests until it is readmitted, or registered at another address \
         (revision {})\n",
        shown(&args.backend),
        shown(&args.app),
        answer["revision"],
    );
    if let Some(warning) = answer["warning"].as_str() {
        said.push_str(&format!("{}\n", shown(warning)));
    }
    print(&said)
}

/// `portico readmit APP BACKEND`
pub(super) fn readmit(client: &Client<'_>, args: &Backend) -> Result<(), CommandError> {
    let answer = order(client, args, "readmit")?;
    if client.json() {
        return print_json(&answer);
    }
    let edges = &answer["edges"];
    let mut said = format!(
        "{} of {} is back in rotation, and what was held against it is forgotten (revision {})\n",
        shown(&args.backend),
        shown(&args.app),
        answer["revision"],
    );
    if edges["asked"] != edges["answered"] {
        said.push_str(&format!(
            "only {} of {} edges have confirmed it\n",
            edges["answered"], edges["asked"]
        ));
    }
    print(&said)
}

/// `portico confirm-shrink`
pub(super) fn confirm_shrink(client: &Client<'_>) -> Result<(), CommandError> {
    let answer = client.post(Port::Admin, "/table/confirm")?;
    if client.json() {
        return print_json(&answer);
    }
    print(&format!(
        "confirmed: up to {} apps and {} backends are gone; the table of revision {} goes out\n",
        answer["apps"], answer["backends"], answer["revision"],
    ))
}

fn order(client: &Client<'_>, args: &Backend, verb: &str) -> Result<Value, CommandError> {
    let mut path = format!(
        "/apps/{}/backends/{}/{verb}",
        segment(&args.app),
        segment(&args.backend)
    );
    if args.wait {
        path.push_str("?wait=active");
    }
    client.post(Port::Admin, &path)
}
