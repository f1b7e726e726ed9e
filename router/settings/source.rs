//! Where values come from: a TOML file or `--set KEY=TOML`, flattened to
//! dotted keys that remember their place. Never judges a value.

use std::path::Path;

use toml::Value;
use toml::de::{DeTable, DeValue};

use super::error::{Place, SettingsError};
use super::rows;

/// The largest settings file read, in bytes: a wrong path (a log, a device)
/// must not fill memory.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// One value somebody wrote.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The full dotted key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// Where it was written.
    pub place: Place,
    /// An unquoted word of the command line: not TOML by itself.
    pub bare: bool,
}

/// Reads and flattens one file.
pub(super) fn read_file(path: &Path) -> Result<Vec<Entry>, SettingsError> {
    let text = read_bounded(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })?;
    let place = |offset: usize| Place::File {
        path: path.to_owned(),
        line: line_of(&text, offset),
    };
    let syntax = |error: &toml::de::Error| SettingsError::Syntax {
        place: place(error.span().map_or(0, |span| span.start)),
        message: error.message().to_owned(),
    };
    let tree = DeTable::parse(&text).map_err(|error| syntax(&error))?;
    let values: toml::Table = toml::from_str(&text).map_err(|error| syntax(&error))?;
    let mut entries = Vec::new();
    flatten("", tree.get_ref(), &values, &mut |key, value, offset| {
        entries.push(Entry {
            key,
            value,
            place: place(offset),
            bare: false,
        });
    });
    Ok(entries)
}

fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::{Error, ErrorKind, Read};
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::new(
            ErrorKind::FileTooLarge,
            "longer than 1 MiB: not a settings file",
        ));
    }
    Ok(text)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|&&byte| byte == b'\n')
        .count()
        + 1
}

/// Walks the spanned tree and the plain values side by side: the first knows
/// the places, the second the values. A table that stands where a key takes
/// a value is handed on whole, for its row to refuse.
fn flatten(
    prefix: &str,
    tree: &DeTable<'_>,
    values: &toml::Table,
    found: &mut impl FnMut(String, Value, usize),
) {
    // DeTable iterates in the order of the names; messages want the file's.
    let mut children: Vec<_> = tree.iter().collect();
    children.sort_by_key(|(name, _)| name.span().start);
    for (name, child) in children {
        let Some(value) = values.get(name.get_ref().as_ref()) else {
            continue;
        };
        let key = join(prefix, name.get_ref());
        match (child.get_ref(), value) {
            (DeValue::Table(tree), Value::Table(values)) if !rows::is_key(&key) => {
                if values.is_empty() && !rows::is_section(&key) {
                    found(key, value.clone(), name.span().start);
                } else {
                    flatten(&key, tree, values, found);
                }
            }
            _ => found(key, value.clone(), name.span().start),
        }
    }
}

/// Reads `KEY=TOML`. What is not TOML is a string: `--set log.access=off`.
pub(super) fn read_override(text: &str) -> Result<Vec<Entry>, SettingsError> {
    let malformed = || SettingsError::Override {
        text: text.to_owned(),
    };
    let (key, raw) = text.split_once('=').ok_or_else(malformed)?;
    let (key, raw) = (key.trim(), raw.trim());
    if key.is_empty() || raw.is_empty() {
        return Err(malformed());
    }
    let (value, bare) = match raw.parse::<Value>() {
        Ok(value) => (value, false),
        // Quoted or bracketed, it was meant as TOML: say what is wrong with it.
        Err(error) if raw.starts_with(['"', '\'', '[', '{']) => {
            return Err(SettingsError::Syntax {
                place: Place::Override,
                message: format!("{key}={raw}: {}", error.message()),
            });
        }
        Err(_) => (Value::String(raw.to_owned()), true),
    };
    let mut entries = Vec::new();
    flatten_value(key, value, &mut |key, value| {
        entries.push(Entry {
            key,
            value,
            place: Place::Override,
            bare,
        });
    });
    Ok(entries)
}

fn flatten_value(key: &str, value: Value, found: &mut impl FnMut(String, Value)) {
    match value {
        Value::Table(table) if !table.is_empty() && !rows::is_key(key) => {
            for (name, value) in table {
                flatten_value(&join(key, &name), value, found);
            }
        }
        value => found(key.to_owned(), value),
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}
