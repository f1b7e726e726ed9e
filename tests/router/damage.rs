//! Damage and want: a lost store, a torn snapshot, a full disk. A clear word,
//! and nothing lost that was there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use crate::harness::{Backend, Client, Router, Setup, eventually, within};

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

fn stores(setup: &Setup) -> Vec<PathBuf> {
    let found: Vec<PathBuf> = files(&setup.state_dir())
        .into_iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "redb")
        })
        .collect();
    assert!(
        !found.is_empty(),
        "no store in {:?}",
        files(&setup.state_dir())
    );
    found
}

fn table_files(setup: &Setup) -> Vec<PathBuf> {
    let found = files(&setup.state_dir().join("table"));
    assert!(
        !found.is_empty(),
        "no snapshot in {:?}",
        files(&setup.state_dir())
    );
    found
}

/// A router that served `shop`, stopped.
fn stopped(backend: &Backend) -> Setup {
    let router = Router::start();
    router.serve("shop", &[backend]);
    router.get("shop", "/before").expect(200);
    router.stop()
}

#[track_caller]
fn serves(router: &Router, body: &str) {
    let answer = eventually("the app is served", || {
        let mut client = Client::try_connect(router.http()).ok()?;
        client.try_send("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
        client.try_answer_to("GET").ok()
    });
    assert_eq!(answer.expect(200).text(), body);
}

#[test]
fn without_its_store_a_router_serves_by_its_snapshot() {
    let backend = Backend::named("remembered");
    let setup = stopped(&backend);
    for store in stores(&setup) {
        fs::remove_file(store).expect("a file must be removable");
    }
    let router = setup.launch();
    serves(&router, "remembered");
    // An empty store is never believed over a snapshot that is not empty: also
    // not a while later, once control is up and connected.
    let until = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < until {
        serves(&router, "remembered");
    }
}

#[test]
fn a_damaged_store_is_named_and_traffic_goes_on() {
    let backend = Backend::named("remembered");
    let setup = stopped(&backend);
    let mut names = Vec::new();
    for store in stores(&setup) {
        fs::write(&store, vec![0xa5; 100_000]).expect("a file must be writable");
        names.push(
            store
                .file_name()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned(),
        );
    }
    let router = setup.launch();
    serves(&router, "remembered");
    eventually("the damaged file is named", || {
        let words = router.words();
        names.iter().any(|name| words.contains(name)).then_some(())
    });
}

#[test]
fn a_damaged_snapshot_is_healed_from_the_store() {
    let backend = Backend::named("healed");
    for damage in ["torn", "scrambled", "emptied", "removed"] {
        let setup = stopped(&backend);
        for file in table_files(&setup) {
            let mut bytes = fs::read(&file).expect("a file must be readable");
            match damage {
                "torn" => bytes.truncate(bytes.len() / 2),
                "scrambled" => bytes.iter_mut().for_each(|byte| *byte ^= 0x5a),
                _ => bytes.clear(),
            }
            if damage == "removed" {
                fs::remove_file(&file).expect("a file must be removable");
            } else {
                fs::write(&file, bytes).expect("a file must be writable");
            }
        }
        let router = setup.start();
        serves(&router, "healed");
        let router = router.stop().start();
        serves(&router, "healed");
    }
}

#[test]
fn a_single_flipped_byte_anywhere_in_the_snapshot_loses_nothing() {
    let backend = Backend::named("whole");
    let mut setup = stopped(&backend);
    let count = table_files(&setup).len();
    for index in 0..count.min(4) {
        let file = table_files(&setup)[index.min(table_files(&setup).len() - 1)].clone();
        let mut bytes = fs::read(&file).expect("a file must be readable");
        if bytes.is_empty() {
            continue;
        }
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&file, bytes).expect("a file must be writable");
        let router = setup.start();
        serves(&router, "whole");
        setup = router.stop();
    }
}

#[test]
fn with_store_and_snapshot_gone_it_starts_empty_and_ready() {
    let backend = Backend::named("gone");
    let setup = stopped(&backend);
    fs::remove_dir_all(setup.state_dir()).expect("a folder must be removable");
    let router = setup.start();
    router.get("shop", "/").refused(404, "H30");
}

#[test]
fn a_full_disk_refuses_changes_and_loses_nothing() {
    // No file may grow beyond 3 MiB: to a store, what a full disk is, without
    // needing a disk of one's own.
    let setup = Setup::new()
        .set("log.access=\"off\"")
        .after("trap '' XFSZ; ulimit -f 3072");
    let router = setup.start();
    let backend = Backend::named("kept");
    router.serve("shop", &[&backend]);
    let policy = json!({ "retries": 1 });
    let mut stored = 0;
    let refused = within(Duration::from_secs(120), "a change is refused", || {
        let lines: String = (0..200)
            .map(|number| {
                let app = format!("filler-{}", stored * 200 + number);
                let domains: Vec<String> = (0..5)
                    .map(|n| format!("{app}-{n}.{}.test", "x".repeat(50)))
                    .collect();
                json!({ "app": app, "domains": domains, "policy": policy }).to_string() + "\n"
            })
            .collect();
        let bearer = format!("Bearer {}", router.token());
        let headers = [
            ("Authorization", bearer.as_str()),
            ("Content-Type", "application/x-ndjson"),
        ];
        let answer =
            crate::harness::router::request(router.api(), "POST", "/v1/import", &headers, &lines);
        stored += 1;
        (answer.status != 200).then_some(answer)
    });
    assert!(refused.status >= 500, "{refused:?}");
    let problem = refused.json();
    assert!(problem["code"].is_string(), "{problem}");
    // What was there still is, and is still served.
    serves(&router, "kept");
    router.read("/v1/apps/shop").expect(200);
    router.read("/v1/apps/filler-0").expect(200);
}

#[test]
fn a_state_folder_that_cannot_be_written_is_named() {
    let setup = Setup::new();
    fs::write(setup.state_dir(), "a file, not a folder").expect("writable");
    let output = setup.fails();
    assert!(!output.status.success());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        words.contains(&setup.state_dir().display().to_string()),
        "{words}"
    );
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address");
    for key in ["edge.http", "api.listen", "admin.listen"] {
        let value = if key == "edge.http" {
            format!("[\"{address}\"]")
        } else {
            format!("\"{address}\"")
        };
        let output = Setup::new().set(&format!("{key}={value}")).fails();
        assert_eq!(output.status.code(), Some(1), "{key}: {output:?}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains(&address.to_string()), "{key}: {words}");
    }
}

#[test]
fn a_second_router_on_the_same_state_folder_is_refused() {
    let router = Router::start();
    let folder = router.state_dir();
    let second = Setup::new().set(&format!("state_dir=\"{}\"", folder.display()));
    let output = second.fails();
    assert!(!output.status.success(), "{output:?}");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains(&folder.display().to_string()), "{words}");
    // And the first is untouched.
    let backend = Backend::named("first");
    router.serve("shop", &[&backend]);
    serves(&router, "first");
}
