//! `portico limit`: the named limits, listed, shown, set and removed.
//!
//! A number alone changes nothing else about a limit; options shape it. What
//! makes no sense is refused here, before anybody is asked.

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Asked, Client, Port, segment};
use super::text::{Lean, Table, print, print_json, shown};
use super::{CommandError, SettingsArgs};
use crate::policy::limit::Rate;

/// How often a number is set anew because somebody else changed the limit.
const RACES: usize = 5;

/// `portico limit`
#[derive(Args, Debug)]
pub struct Limit {
    /// Which limit; none: lists them all
    pub name: Option<String>,
    /// Its number: 10 or 10/s, 600/m, 36/h; 0 stops it
    #[arg(allow_negative_numbers = true)]
    pub number: Option<String>,
    /// Only requests to this app
    #[arg(long)]
    pub app: Option<String>,
    /// Only paths below this one
    #[arg(long)]
    pub path: Option<String>,
    /// Only requests with this header
    #[arg(long, value_name = "NAME=VALUE")]
    pub header: Option<String>,
    /// Each client its own, or each value of a header: client, header=NAME
    #[arg(long, value_name = "WHAT")]
    pub per: Option<String>,
    /// So many at once after a quiet time [default: a second's worth]
    #[arg(long, value_name = "N")]
    pub burst: Option<u32>,
    /// The number is of requests under way at once
    #[arg(long)]
    pub concurrency: bool,
    /// Remove it; a flow of the router's own goes back to its default
    #[arg(long, conflicts_with_all = ["number", "app", "path", "header", "per", "burst", "concurrency"])]
    pub delete: bool,
    /// Wait until every edge goes by it
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    pub(super) settings: SettingsArgs,
}

/// Does what was asked.
pub(super) fn limit(client: &Client<'_>, args: &Limit) -> Result<(), CommandError> {
    let Some(name) = &args.name else {
        return list(client);
    };
    let path = format!("/limits/{}", segment(name));
    match &args.number {
        _ if args.delete => delete(client, args, name, &path),
        Some(number) => set(client, args, &path, number),
        None if is_shaped(args) => Err(CommandError::Usage(
            "say the number too: what is shaped here is the limit with that number".into(),
        )),
        None => {
            let answer = client.admin(&path)?;
            if client.json() {
                return print_json(&answer);
            }
            print(&told(&answer))
        }
    }
}

fn is_shaped(args: &Limit) -> bool {
    let texts = [&args.app, &args.path, &args.header, &args.per];
    texts.iter().any(|text| text.is_some()) || args.burst.is_some() || args.concurrency
}

fn list(client: &Client<'_>) -> Result<(), CommandError> {
    let answer = client.admin("/limits")?;
    if client.json() {
        return print_json(&answer);
    }
    let heads = [
        ("LIMIT", Lean::Left),
        ("NUMBER", Lean::Right),
        ("FOR", Lean::Left),
        ("FROM", Lean::Left),
    ];
    let mut table = Table::new(&heads);
    for limit in answer["limits"].as_array().into_iter().flatten() {
        let text = |value: &Value| shown(value.as_str().unwrap_or_default());
        table.row([
            text(&limit["name"]),
            number(limit),
            subject(limit),
            text(&limit["source"]),
        ]);
    }
    print(&table.text())
}

fn delete(client: &Client<'_>, args: &Limit, name: &str, path: &str) -> Result<(), CommandError> {
    let asked = client.ask(&Asked {
        method: "DELETE",
        port: Port::Admin,
        path: &waiting(args, path),
        body: None,
        if_match: None,
    })?;
    let answer = asked.success()?;
    if client.json() {
        return print_json(&answer);
    }
    print(&format!("{} is removed\n", shown(name)))
}

fn waiting(args: &Limit, path: &str) -> String {
    match args.wait {
        true => format!("{path}?wait=active"),
        false => path.to_owned(),
    }
}

/// Reads the limit, puts the number into it, and writes it back unless somebody
/// else was quicker: then once more.
fn set(client: &Client<'_>, args: &Limit, path: &str, number: &str) -> Result<(), CommandError> {
    let shaped = shape(args, number)?;
    for race in 1.. {
        let known = client.ask(&Asked {
            method: "GET",
            port: Port::Admin,
            path,
            body: None,
            if_match: None,
        })?;
        let (before, tag) = match known.status {
            404 => (Map::new(), None),
            _ => {
                let tag = known.etag.clone();
                (fields(known.success()?), tag)
            }
        };
        let body = merged(before, &shaped, number)?;
        let put = client.ask(&Asked {
            method: "PUT",
            port: Port::Admin,
            path: &waiting(args, path),
            body: Some(&body),
            if_match: tag.as_deref(),
        })?;
        if put.status == 412 && race < RACES {
            continue;
        }
        let answer = put.success()?;
        if client.json() {
            return print_json(&answer);
        }
        return print(&told(&answer));
    }
    Ok(())
}

/// What of a limit that is there a new number leaves as it is.
fn fields(answer: Value) -> Map<String, Value> {
    const KEPT: [&str; 7] = [
        "rate",
        "concurrency",
        "burst",
        "app",
        "path",
        "header",
        "per",
    ];
    let Value::Object(mut fields) = answer else {
        return Map::new();
    };
    fields.retain(|field, _| KEPT.contains(&field.as_str()));
    fields
}

/// The fields that the options say.
fn shape(args: &Limit, number: &str) -> Result<Map<String, Value>, CommandError> {
    let usage = |text: &str| CommandError::Usage(text.to_owned());
    let mut fields = Map::new();
    if args.concurrency {
        let most: Option<u32> = number.parse().ok();
        let most = most.ok_or_else(|| usage("expected a whole number of requests under way"))?;
        fields.insert("concurrency".into(), json!(most));
    } else {
        let rate: Result<Rate, _> = number.parse();
        rate.map_err(|wrong| CommandError::Usage(format!("{number}: {wrong}")))?;
    }
    for (field, text) in [("app", &args.app), ("path", &args.path)] {
        if let Some(text) = text {
            fields.insert(field.into(), json!(text));
        }
    }
    if let Some(burst) = args.burst {
        fields.insert("burst".into(), json!(burst));
    }
    if let Some(header) = &args.header {
        let said = header.split_once('=');
        let (name, value) = said.ok_or_else(|| usage("--header: expected NAME=VALUE"))?;
        fields.insert("header".into(), json!({ "name": name, "value": value }));
    }
    if let Some(per) = &args.per {
        let per = match (per.as_str(), per.split_once('=')) {
            ("client", _) => json!("client"),
            (_, Some(("header", name))) => json!({ "header": name }),
            _ => return Err(usage("--per: expected client, or header=NAME")),
        };
        fields.insert("per".into(), per);
    }
    Ok(fields)
}

/// The limit that is to be. A number alone is of what the limit is of.
fn merged(
    mut before: Map<String, Value>,
    shaped: &Map<String, Value>,
    number: &str,
) -> Result<Value, CommandError> {
    let is_crowd = before.contains_key("concurrency") && !shaped.contains_key("burst");
    for number in ["rate", "concurrency"] {
        before.remove(number);
    }
    before.extend(shaped.clone());
    if shaped.contains_key("concurrency") {
        before.remove("burst");
    } else if is_crowd {
        let most: Result<u32, _> = number.parse();
        let most = most.map_err(|_| {
            let text = "this limit is of requests under way at once: expected a whole number";
            CommandError::Usage(text.to_owned())
        })?;
        before.insert("concurrency".into(), json!(most));
    } else {
        before.insert("rate".into(), json!(number));
    }
    Ok(Value::Object(before))
}

fn number(limit: &Value) -> String {
    match (&limit["concurrency"], limit["rate"].as_str()) {
        (Value::Number(most), _) => format!("{most} at once"),
        (_, Some(rate)) => shown(rate),
        _ => "?".into(),
    }
}

/// Which requests a limit is for, in words.
fn subject(limit: &Value) -> String {
    let mut said = Vec::new();
    let mut say = |what: &str, value: &Value| {
        if let Some(text) = value.as_str() {
            said.push(format!("{what} {}", shown(text)));
        }
    };
    say("app", &limit["app"]);
    say("path", &limit["path"]);
    say("header", &limit["header"]["name"]);
    say("=", &limit["header"]["value"]);
    say("each", &limit["per"]);
    say("each", &limit["per"]["header"]);
    match said.is_empty() {
        true => "-".into(),
        false => said.join(" "),
    }
}

/// A limit in a line; where a file says otherwise than what is stored, that too.
fn told(limit: &Value) -> String {
    let name = shown(limit["name"].as_str().unwrap_or_default());
    let mut line = format!("{name} {}", number(limit));
    let subject = subject(limit);
    if subject != "-" {
        line.push_str(&format!(" for {subject}"));
    }
    if limit["source"] == "file" {
        line.push_str(match limit["stored"].is_object() {
            true => "; so says its file, which wins over what is stored: ",
            false => "; so says its file",
        });
        if limit["stored"].is_object() {
            line.push_str(&number(&limit["stored"]));
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(before: &Value, shaped: &Value, number: &str) -> Result<Value, CommandError> {
        let shaped = shaped.as_object().unwrap();
        merged(fields(before.clone()), shaped, number)
    }

    #[test]
    fn a_number_changes_nothing_else() {
        let before = json!({ "name": "publish", "rate": "20/m", "burst": 5, "path": "/x",
                             "source": "stored", "revision": 3 });
        let after = merge(&before, &json!({}), "10").unwrap();
        assert_eq!(after, json!({ "rate": "10", "burst": 5, "path": "/x" }));
        let before = json!({ "concurrency": 5, "per": "client" });
        let after = merge(&before, &json!({}), "10").unwrap();
        assert_eq!(after, json!({ "concurrency": 10, "per": "client" }));
        assert!(merge(&before, &json!({}), "10/m").is_err());
        let before = json!({ "name": "retries", "rate": "unlimited", "source": "default" });
        assert_eq!(
            merge(&before, &json!({}), "0").unwrap(),
            json!({ "rate": "0" })
        );
    }

    #[test]
    fn options_shape_it() {
        let before = json!({ "rate": "20/m", "burst": 5 });
        let after = merge(&before, &json!({ "concurrency": 3 }), "3").unwrap();
        assert_eq!(after, json!({ "concurrency": 3 }));
        let after = merge(&json!({}), &json!({ "app": "shop" }), "10/m").unwrap();
        assert_eq!(after, json!({ "rate": "10/m", "app": "shop" }));
    }

    #[test]
    fn it_is_told_in_a_line() {
        let limit = json!({ "name": "publish", "rate": "10/s", "app": "shop",
                            "header": { "name": "X-Plan", "value": "free" }, "per": "client",
                            "source": "file", "stored": { "rate": "20/s" } });
        assert_eq!(
            told(&limit),
            "publish 10/s for app shop header X-Plan = free each client; so says its file, which wins over what is \
             stored: 20/s\n"
        );
        assert_eq!(
            told(&json!({ "name": "a", "concurrency": 5 })),
            "a 5 at once\n"
        );
    }
}
