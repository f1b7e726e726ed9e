//! Apps by the million: progress, being interrupted, going on, and what a
//! restart of control does to it. And the list they are read back from.

use std::io::Write;
use std::process::{Child, Output, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::router::request;
use crate::harness::{DEADLINE, Router, processes, within};

/// Lines that make up a piece of `portico import`.
const PIECE: usize = 25_000;

fn line(number: usize) -> String {
    format!("{{\"app\":\"app-{number:06}\",\"domains\":[\"h{number}.test\"]}}\n")
}

fn lines(numbers: std::ops::Range<usize>) -> String {
    numbers.map(line).collect()
}

fn apps(router: &Router) -> u64 {
    let answer = router.admin_get("/apps?limit=1").expect(200).json();
    answer["total"].as_u64().expect("a number")
}

/// `portico import`, to be fed.
fn importing(router: &Router, arguments: &[&str]) -> Child {
    router
        .operator(&[&["import", "-"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("portico must run")
}

fn feed(child: &mut Child, text: &str) {
    let input = child.stdin.as_mut().expect("it was piped");
    input.write_all(text.as_bytes()).expect("it must read");
}

fn ended(mut child: Child) -> Output {
    drop(child.stdin.take());
    child.wait_with_output().expect("it must end")
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_import_asked_for_lines_ends_with_its_report() {
    let router = Router::start();
    let bearer = format!("Bearer {}", router.token());
    let headers = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", "application/x-ndjson"),
        ("Accept", "application/x-ndjson"),
    ];
    let text = format!("{}nonsense\n", lines(0..2_000));
    let answer = request(
        router.api(),
        "POST",
        "/v1/import?wait=active",
        &headers,
        &text,
    );
    let answer = answer.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let told: Vec<Value> = answer
        .text()
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line must be JSON"))
        .collect();
    let (last, before) = told.split_last().expect("at least the report");
    assert!(before.iter().all(|line| line["done"] == false));
    assert_eq!(last["done"], true);
    let counts = ["lines", "created", "failed"].map(|key| last[key].as_u64());
    assert_eq!(counts, [Some(2_001), Some(2_000), Some(1)], "{last}");
    assert_eq!(last["errors"][0]["line"], 2_001);
    assert!(last["lines_per_second"].as_f64() > Some(0.0));
}

#[test]
fn an_import_that_is_interrupted_says_where_to_go_on() {
    let router = Router::start();
    let all = lines(0..PIECE + 500);
    let mut child = importing(&router, &[]);
    feed(&mut child, &all);
    within(DEADLINE * 3, "the first piece is taken", || {
        (apps(&router) >= PIECE as u64).then_some(())
    });
    // The answer may be on its way still: the line then is an earlier one.
    crate::harness::pause(std::time::Duration::from_millis(300));
    processes::signal(child.id(), Signal::INT);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = words(&output);
    let from = said
        .split("--from ")
        .nth(1)
        .unwrap_or_else(|| panic!("{said}"));
    let from: usize = from
        .chars()
        .take_while(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .expect("a line");
    assert!(from == 1 || from == PIECE + 1, "{said}");

    let mut child = importing(&router, &["--from", &from.to_string(), "--wait", "--json"]);
    feed(&mut child, &all);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    assert_eq!(report["lines"], PIECE + 500 - (from - 1));
    assert_eq!(apps(&router), (PIECE + 500) as u64);
}

#[test]
fn an_import_survives_the_death_of_control() {
    let router = Router::start();
    let mut child = importing(&router, &["--quiet"]);
    feed(&mut child, &lines(0..PIECE + 10));
    within(DEADLINE * 3, "the first piece is taken", || {
        (apps(&router) >= PIECE as u64).then_some(())
    });
    processes::signal(router.process("control"), Signal::KILL);
    feed(&mut child, &lines(PIECE + 10..2 * PIECE));
    let output = ended(child);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(apps(&router), 2 * PIECE as u64);
    let said = words(&output);
    assert!(!said.contains('%'), "it was to be quiet: {said}");
}

#[test]
fn errors_have_the_files_own_line_numbers() {
    let router = Router::start();
    let file = router.state_dir().join("apps.ndjson");
    let text = format!(
        "{}nonsense\n{}",
        lines(0..PIECE + 3),
        lines(PIECE + 3..PIECE + 9)
    );
    std::fs::write(&file, text).expect("writable");
    let name = file.display().to_string();
    let output = router.run(&["import", &name]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let place = format!("{name}:{}:", PIECE + 4);
    assert!(words(&output).contains(&place), "{}", words(&output));
    assert_eq!(apps(&router), (PIECE + 9) as u64);
    // Past its end there is nothing to go on with.
    let output = router.run(&["import", &name, "--from", "900000"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        words(&output).contains("ends before line 900000"),
        "{output:?}"
    );
    let output = router.run(&["import", &name, "--from", "0"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn an_import_in_pieces_that_drops_most_backends_must_be_meant() {
    let router = Router::start();
    let with_backend = |number: usize| {
        format!(
            "{{\"app\":\"app-{number:06}\",\"domains\":[],\"backends\":{{\"w\":{{\"address\":\"127.0.0.1:9\"}}}}}}\n"
        )
    };
    // Each piece drops 15 % of the backends: none too many by itself.
    let few = PIECE * 3 / 10;
    let apps: String = (0..2 * PIECE).map(with_backend).collect();
    let mut child = importing(&router, &[]);
    feed(&mut child, &apps);
    assert_eq!(ended(child).status.code(), Some(0));
    let emptied: String = (0..2 * PIECE)
        .map(|number| {
            if number % PIECE < few {
                format!("{{\"app\":\"app-{number:06}\",\"domains\":[],\"backends\":{{}}}}\n")
            } else {
                with_backend(number)
            }
        })
        .collect();
    let mut child = importing(&router, &[]);
    feed(&mut child, &emptied);
    let output = ended(child);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(words(&output).contains("409"), "{}", words(&output));
    let mut child = importing(&router, &["--confirm-shrink"]);
    feed(&mut child, &emptied);
    assert_eq!(ended(child).status.code(), Some(0));
}

#[test]
fn pages_hold_each_app_once_and_in_order() {
    let router = Router::start();
    let mut child = importing(&router, &[]);
    feed(&mut child, &lines(0..3_000));
    assert_eq!(ended(child).status.code(), Some(0));
    for admin in [false, true] {
        let mut names: Vec<String> = Vec::new();
        let mut next = Some(String::new());
        while let Some(after) = next {
            let page = match admin {
                false => router.read(&format!("/v1/apps?limit=700&after={after}")),
                true => router.admin_get(&format!("/apps?limit=700&after={after}")),
            };
            let page = page.expect(200).json();
            let apps = page["apps"].as_array().expect("a page").clone();
            names.extend(
                apps.iter()
                    .filter_map(|app| app["app"].as_str().map(str::to_owned)),
            );
            next = page["next"].as_str().map(str::to_owned);
        }
        let all: Vec<String> = (0..3_000)
            .map(|number| format!("app-{number:06}"))
            .collect();
        assert_eq!(names, all, "admin: {admin}");
    }
    // The last page is as good as the first; past the end there is none.
    let page = router.read("/v1/apps?after=app-002999").expect(200).json();
    assert_eq!((&page["apps"], &page["next"]), (&json!([]), &Value::Null));
}
