//! Access log lines, parsed as a log pipeline would.

use std::collections::BTreeMap;

/// One line's fields.
pub type Fields = BTreeMap<String, String>;

/// `key=value key="quoted value"` into fields; fails on anything else.
pub fn logfmt(line: &str) -> Fields {
    let mut fields = Fields::new();
    let mut rest = line.trim_end();
    while !rest.is_empty() {
        let (key, after) = rest
            .split_once('=')
            .unwrap_or_else(|| panic!("no `=` in {rest:?} of {line:?}"));
        assert!(
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "not a key: {key:?} in {line:?}"
        );
        let (value, after) = if let Some(quoted) = after.strip_prefix('"') {
            quoted_value(quoted, line)
        } else {
            let end = after.find(' ').unwrap_or(after.len());
            (after[..end].to_owned(), &after[end..])
        };
        assert!(
            fields.insert(key.to_owned(), value).is_none(),
            "`{key}` twice in {line:?}"
        );
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    fields
}

fn quoted_value<'a>(quoted: &'a str, line: &str) -> (String, &'a str) {
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => {
                let (_, next) = characters
                    .next()
                    .unwrap_or_else(|| panic!("ends within an escape: {line:?}"));
                value.push('\\');
                value.push(next);
            }
            other => value.push(other),
        }
    }
    panic!("unclosed quote: {line:?}")
}

/// A JSON line into the same shape.
pub fn json(line: &str) -> Fields {
    let value: serde_json::Value =
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}"));
    let object = value
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {line:?}"));
    object
        .iter()
        .map(|(key, value)| {
            let text = match value {
                serde_json::Value::String(text) => text.clone(),
                serde_json::Value::Null => String::new(),
                other => other.to_string(),
            };
            (key.clone(), text)
        })
        .collect()
}
