//! A wall clock that jumps by hours: no lease expires by it, nothing is taken
//! for a stall, nobody is turned away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::harness::{Backend, Router, Setup, eventually, need, stays};

/// The wall clock of a router, to be set.
struct Clock(NamedTempFile);

impl Clock {
    fn new() -> Clock {
        need("faketime", "faketime");
        let file = NamedTempFile::new().expect("the temporary folder must be writable");
        // The router's processes may run as other users.
        fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644))
            .expect("a file's mode must be settable");
        let clock = Clock(file);
        clock.set("+0");
        clock
    }

    /// So far beside the system's.
    fn set(&self, offset: &str) {
        fs::write(self.0.path(), offset).expect("the file must be writable");
    }

    /// What a router must be started after to go by it.
    fn setup(&self) -> Setup {
        Setup::new().after(&format!(
            "export FAKETIME_TIMESTAMP_FILE='{}' FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
             LD_PRELOAD='{}'",
            self.0.path().display(),
            library().display()
        ))
    }
}

/// Where Debian's package has it, whatever the machine's architecture.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|file| file.is_file())
        .expect("Debian's package `faketime` must have its library in place")
}

fn kinds(router: &Router) -> Vec<String> {
    let overview = router.admin_get("/overview").expect(200).json();
    let events = overview["events"].as_array().expect("a list").clone();
    let kind = |event: &Value| event["kind"].as_str().unwrap_or_default().to_owned();
    events.iter().map(kind).collect()
}

#[test]
fn jumps_of_an_hour_expire_no_lease_and_stop_nothing() {
    let clock = Clock::new();
    let router = clock.setup().start();
    let backend = Backend::named("punctual");
    router.serve("shop", &[&backend]);
    let leased = json!({ "address": backend.address().to_string(), "lease_seconds": 6 });
    let path = "/v1/apps/shop/backends/web.1";
    router.put(path, &leased).expect(200);
    let processes = [router.process("edge"), router.process("control")];
    let real = SystemTime::now();
    for (offset, hours) in [("+1h", 1), ("-1h", -1), ("+1h", 1), ("+0", 0)] {
        clock.set(offset);
        stays(Duration::from_secs(4), "it goes on", || {
            router
                .post(&format!("{path}/heartbeat"), &json!({}))
                .expect(204);
            router.get("shop", "/").status == 200 && router.ready_status() == Some(200)
        });
        // It did jump, and the router goes by it where the time of day is meant.
        eventually("a request tells the time of day", || {
            router.get("shop", "/now").expect(200);
            let requests = backend.requests();
            let last = requests.last()?.header("x-request-start")?.to_owned();
            let seen_ms: i64 = last.parse().ok()?;
            let real_ms = UNIX_EPOCH.elapsed().ok()?.as_millis() as i64;
            let minutes = (seen_ms - real_ms) / 60_000;
            (minutes - hours * 60).abs().le(&2).then_some(())
        });
        router.put(
            "/v1/apps/other?wait=active",
            &json!({ "domains": [format!("{hours}.example")] }),
        );
    }
    assert!(
        real.elapsed().is_ok(),
        "the machine's own clock must not have jumped"
    );
    assert_eq!(
        processes,
        [router.process("edge"), router.process("control")]
    );
    let bad = [
        "lease_expired",
        "lease_removed",
        "lease_removal_frozen",
        "edge_disconnected",
    ];
    let said = kinds(&router);
    assert!(
        said.iter().all(|kind| !bad.contains(&kind.as_str())),
        "{said:?}"
    );
    // And a lease that is not renewed ends, jump or no jump.
    clock.set("-1h");
    eventually("it is suspect", || {
        kinds(&router)
            .contains(&"lease_expired".to_owned())
            .then_some(())
    });
}
