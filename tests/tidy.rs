//! The house rules, held: layers, sizes, headings, names, where `unsafe` may
//! stand, and a root that stays as it is. Reads sources only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which layers may not be named from which.
///
/// Below them all stand `settings` and `heritage`; `main.rs` wires.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "policy",
        &["edge", "control", "supervisor", "cli", "heritage"],
    ),
    (
        "params",
        &["edge", "control", "supervisor", "cli", "heritage"],
    ),
    (
        "observe",
        &["edge", "control", "supervisor", "cli", "heritage"],
    ),
    (
        "feed",
        &[
            "edge",
            "control",
            "supervisor",
            "cli",
            "heritage",
            "table",
            "policy",
        ],
    ),
    (
        "table",
        &["edge", "control", "supervisor", "cli", "heritage"],
    ),
    (
        "settings",
        &[
            "edge",
            "control",
            "supervisor",
            "cli",
            "heritage",
            "table",
            "policy",
            "feed",
            "observe",
        ],
    ),
    (
        "heritage",
        &[
            "edge",
            "control",
            "supervisor",
            "cli",
            "table",
            "policy",
            "feed",
            "observe",
        ],
    ),
    ("edge", &["control", "supervisor", "cli"]),
    ("control", &["edge", "supervisor", "cli"]),
    (
        "supervisor",
        &[
            "edge", "control", "cli", "table", "policy", "feed", "params", "observe",
        ],
    ),
];

/// Files that may be longer than [`LINES`], and why.
const LONGER: &[(&str, &str)] = &[
    (
        "router/control/staging.rs",
        "every change of the registry stands beside the others it must agree with",
    ),
    (
        "router/control/store.rs",
        "the store's layout and its tests; half of it is tests",
    ),
];

/// How long a file may be.
const LINES: usize = 500;

/// Files that may say `unsafe`; each states why it is sound.
const UNSAFE: &[&str] = &["router/heritage/adopt.rs"];

/// Words that say nothing about what a thing is.
const EMPTY_WORDS: &[&str] = &[
    "util", "utils", "common", "helper", "helpers", "manager", "misc",
];

/// What stands at the root; dotfiles and clippy's settings aside.
const ROOT: &[&str] = &[
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "README.md",
    "benches",
    "config",
    "load-tests",
    "router",
    "tests",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A source file, its path from the root, and its text.
struct Source {
    path: String,
    text: String,
}

/// Every file of Rust below these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut next: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    next.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(root())
                    .expect("it must be below the root");
                found.push(Source {
                    path: name.display().to_string(),
                    text: fs::read_to_string(&path).expect("a source must be readable"),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folders:?}");
    found
}

fn everything() -> Vec<Source> {
    sources(&["router", "tests", "benches", "load-tests"])
}

/// The layer a file of `router/` belongs to: its folder, or its own name.
fn layer(path: &str) -> &str {
    let inner = path.strip_prefix("router/").expect("it must be in router/");
    inner
        .split(['/', '.'])
        .next()
        .expect("split gives one piece")
}

/// A line without its comment, so that prose may say what code may not.
fn code(line: &str) -> &str {
    let line = line.trim_start();
    if line.starts_with("//") {
        ""
    } else {
        line.split(" // ").next().expect("one piece")
    }
}

/// Every module of the crate named after `crate::` in a line, groups included.
fn named(text: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    let code: String = text
        .lines()
        .map(|line| code(line).to_owned() + "\n")
        .collect();
    let start = "crate::";
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + start.len()..];
        if let Some(group) = rest.strip_prefix('{') {
            modules.extend(heads(group));
        } else {
            modules.insert(identifier(rest));
        }
    }
    modules
}

/// The first word of each item of a `{a::b, c::{d, e}}` group.
fn heads(group: &str) -> Vec<String> {
    let mut depth = 0;
    let mut found = vec![identifier(group.trim_start())];
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => found.push(identifier(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

#[test]
fn imports_point_one_way() {
    let mut wrong = Vec::new();
    for source in sources(&["router"]) {
        let here = layer(&source.path);
        let Some((_, forbidden)) = LAYERS.iter().find(|(layer, _)| *layer == here) else {
            continue;
        };
        for module in named(&source.text) {
            if forbidden.contains(&module.as_str()) {
                wrong.push(format!("{} names crate::{module}", source.path));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "layers are crossed:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_module_of_the_crate_has_a_place_in_the_layers() {
    let known: BTreeSet<&str> = LAYERS
        .iter()
        .map(|(layer, _)| *layer)
        .chain(["cli", "lib", "main"])
        .collect();
    for source in sources(&["router"]) {
        let here = layer(&source.path);
        assert!(
            known.contains(here),
            "{}: `{here}` stands in no layer",
            source.path
        );
    }
}

#[test]
fn the_scan_for_imports_sees_what_it_should() {
    let text = "use crate::{edge::x, table::{a, control}, feed};\n\
                // crate::supervisor in prose\n\
                let x = crate::observe::Code::H10; // crate::cli\n";
    let found: Vec<String> = named(text).into_iter().collect();
    assert_eq!(found, ["edge", "feed", "observe", "table"]);
}

#[test]
fn every_file_says_what_it_owns() {
    let without: Vec<String> = everything()
        .into_iter()
        .filter(|source| !source.text.trim_start().starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(without.is_empty(), "no `//!` at the top of {without:?}");
}

#[test]
fn files_stay_readable_in_one_go() {
    let too_long: Vec<String> = everything()
        .iter()
        .map(|source| (source.path.as_str(), source.text.lines().count()))
        .filter(|(path, count)| *count > LINES && !LONGER.iter().any(|(longer, _)| longer == path))
        .map(|(path, count)| format!("{path}: {count} lines"))
        .collect();
    assert!(
        too_long.is_empty(),
        "over {LINES} lines:\n{}",
        too_long.join("\n")
    );
}

#[test]
fn main_only_wires() {
    let text = fs::read_to_string(root().join("router/main.rs")).expect("it must be readable");
    let count = text.lines().count();
    assert!(
        count <= 130,
        "router/main.rs has {count} lines; at most 130"
    );
}

#[test]
fn nothing_is_left_for_later() {
    // Spelled in two halves, so that this file passes its own rule.
    let words = [
        concat!("FIX", "ME"),
        concat!("TO", "DO"),
        concat!("XX", "X:"),
        concat!("dbg", "!("),
        concat!("todo", "!("),
        concat!("unimplemented", "!("),
    ];
    let mut found = Vec::new();
    for source in everything() {
        for (number, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn names_say_what_things_are() {
    let mut found = Vec::new();
    for source in everything() {
        for part in source.path.split(['/', '.', '_', '-']) {
            if EMPTY_WORDS.contains(&part) {
                found.push(source.path.clone());
            }
        }
        for (number, line) in source.text.lines().enumerate() {
            let words: Vec<&str> = code(line).split_whitespace().collect();
            for pair in words.windows(2) {
                let defines =
                    ["mod", "fn", "struct", "enum", "trait", "type", "const"].contains(&pair[0]);
                if defines && has_empty_word(&identifier(pair[1])) {
                    found.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "names that say nothing:\n{}",
        found.join("\n")
    );
}

/// Whether a word of a `snake_case` or `CamelCase` name is an empty one.
fn has_empty_word(name: &str) -> bool {
    let mut words = String::new();
    for character in name.chars() {
        if character.is_uppercase() {
            words.push('_');
        }
        words.extend(character.to_lowercase());
    }
    words.split('_').any(|word| EMPTY_WORDS.contains(&word))
}

#[test]
fn unsafe_stands_where_it_is_explained() {
    let mut found = Vec::new();
    for source in everything() {
        let said = source.text.lines().any(|line| {
            let code = code(line);
            [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "allow(unsafe_code)",
                "expect(unsafe_code",
            ]
            .iter()
            .any(|form| code.contains(form))
        });
        if !said || source.path == "tests/tidy.rs" {
            continue;
        }
        if !UNSAFE.contains(&source.path.as_str()) {
            found.push(format!("{}: not among the files that may", source.path));
        } else if !source.text.contains("SAFETY:") {
            found.push(format!("{}: no SAFETY comment", source.path));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn every_settings_file_passes() {
    let mut checked = 0;
    for entry in fs::read_dir(root().join("config"))
        .expect("config/ must be there")
        .flatten()
    {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            let output = Command::new(env!("CARGO_BIN_EXE_portico"))
                .args(["check", "--config"])
                .arg(&path)
                .output()
                .expect("portico must run");
            assert!(
                output.status.success(),
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&output.stderr)
            );
            checked += 1;
        }
    }
    assert!(checked > 0, "config/ has no settings file");
}

#[test]
fn the_root_stays_as_it_is() {
    let output = Command::new("git")
        .args(["ls-files"])
        .current_dir(root())
        .output()
        .expect("git must run");
    assert!(output.status.success(), "{output:?}");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    let stands: BTreeSet<&str> = listed
        .lines()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.') && *name != "clippy.toml")
        .collect();
    let unknown: Vec<&&str> = stands.iter().filter(|name| !ROOT.contains(name)).collect();
    assert!(unknown.is_empty(), "not part of the root: {unknown:?}");
    let missing: Vec<&&str> = ROOT
        .iter()
        .filter(|name| !stands.contains(**name))
        .collect();
    assert!(missing.is_empty(), "missing from the root: {missing:?}");
}

#[test]
fn every_dependency_says_what_it_is_for() {
    for manifest in ["Cargo.toml", "load-tests/Cargo.toml"] {
        let text = fs::read_to_string(root().join(manifest)).expect("it must be readable");
        let mut inside = false;
        for line in text.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside && line.contains('=') && !line.trim_start().starts_with('#') {
                assert!(line.contains(" # "), "{manifest}: no reason given: {line}");
            }
        }
    }
}

#[test]
fn nothing_committed_is_a_stranger_to_the_project() {
    // The rule's own list must not trip it.
    let strangers = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
    let output = Command::new("git")
        .args(["grep", "-nIF"])
        .args(strangers.iter().flat_map(|word| ["-e", word]))
        .current_dir(root())
        .output()
        .expect("git must run");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.is_empty(), "paths of one machine:\n{found}");
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    for script in [".ci/run", "tests/all"] {
        let path: &Path = &root().join(script);
        let mode = fs::metadata(path)
            .expect("it must be there")
            .permissions()
            .mode();
        assert!(mode & 0o111 != 0, "{script} is not executable");
    }
}
