//! What is acknowledged is on disk, whatever happens to the process or the
//! disk; what is refused is not.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;

use super::*;
use crate::control::boot;
use crate::control::events::Events;
use crate::control::refusal::Refusal;
use crate::control::registry::Registry;
use crate::control::staging::{AppSpec, Condition, Outcome};
use crate::control::tokens::Tokens;

/// A disk that is full while the switch says so.
#[derive(Debug)]
struct Disk {
    file: File,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.file.write_all_at(data, offset)
    }
}

fn on_disk(full: Arc<AtomicBool>) -> Opener {
    Box::new(move |path, verify| {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .unwrap();
        let mut builder = Database::builder();
        builder.set_check_integrity_on_open(verify);
        let disk = Disk {
            file,
            full: full.clone(),
        };
        builder
            .create_with_backend(disk)
            .map_err(|error| unopened(path, error))
    })
}

async fn put(registry: &Registry, name: &str) -> Result<Outcome, Refusal> {
    let domains = vec![format!("{name}.example")];
    let spec = AppSpec {
        name: name.into(),
        domains,
        ..AppSpec::default()
    };
    registry
        .change(move |staging| staging.put_app(&spec, &Condition::Always))
        .await
}

fn full(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Store(StoreFailure { full: true, .. }))
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_takes_them_again_once_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let path = store_path(dir.path());
    let switch = Arc::new(AtomicBool::new(false));
    let (mut store, _) = Store::open_by(&path, on_disk(switch.clone())).unwrap();
    let contents = Contents {
        cluster_id: "c".into(),
        epoch: 1,
        ..Contents::default()
    };
    store.found(&contents).unwrap();
    let (registry, _writer) = Registry::start(store, contents, Arc::default()).unwrap();

    assert_eq!(put(&registry, "before").await.unwrap().revision, 1);
    switch.store(true, Ordering::SeqCst);
    for _ in 0..3 {
        let refused = put(&registry, "during").await.unwrap_err();
        assert!(full(&refused), "{refused}");
        assert!(refused.to_string().contains("store.redb"), "{refused}");
    }
    // Nothing of it is seen, its host is free, and reading goes on.
    assert_eq!(registry.revision(), 1);
    assert!(registry.app("during").is_none() && registry.holder("during.example").is_none());
    assert!(registry.app("before").is_some());

    switch.store(false, Ordering::SeqCst);
    assert_eq!(put(&registry, "after").await.unwrap().revision, 2);
    assert!(registry.is_writing());
    registry.close().await;
    let (_store, contents) = Store::open(&path).unwrap();
    let names: Vec<_> = contents.apps.iter().map(|app| &*app.name).collect();
    assert_eq!((contents.revision, names), (2, vec!["after", "before"]));
}

#[tokio::test]
async fn a_batch_is_one_commit_and_reads_its_own_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (store, contents) = boot::open(dir.path(), &Events::default(), |_| None).unwrap();
    let (registry, _writer) =
        Registry::start(store, contents, Arc::new(Tokens::default())).unwrap();
    let one = AppSpec {
        name: "one".into(),
        domains: vec!["x.example".into()],
        ..AppSpec::default()
    };
    let two = AppSpec {
        name: "two".into(),
        ..one.clone()
    };
    let first = registry
        .submit(move |staging| staging.put_app(&one, &Condition::Always))
        .await
        .unwrap();
    let second = registry
        .submit(move |staging| staging.put_app(&two, &Condition::Always))
        .await
        .unwrap();
    let third = registry
        .submit(|staging| staging.delete_app("one", &Condition::Always))
        .await
        .unwrap();
    assert!(first.settled().await.unwrap().created);
    assert!(
        matches!(second.settled().await, Err(Refusal::HostTaken { holder, .. }) if holder == "one")
    );
    assert_eq!(third.settled().await.unwrap().revision, 2);
    assert_eq!(registry.counts().domains, 0);
}

/// In the process that is killed: registers apps and says each one that was
/// acknowledged.
#[tokio::test]
#[ignore = "runs in a process of its own, which is killed: see below"]
async fn registers_until_it_is_killed() {
    let Ok(dir) = std::env::var("PORTICO_TEST_STATE_DIR") else {
        return;
    };
    let (store, contents) = boot::open(Path::new(&dir), &Events::default(), |_| None).unwrap();
    let (registry, _writer) =
        Registry::start(store, contents, Arc::new(Tokens::default())).unwrap();
    for n in 0..1_000_000 {
        let name = format!("app-{n}");
        put(&registry, &name).await.unwrap();
        println!("acknowledged {name}");
    }
}

#[test]
fn a_killed_process_has_lost_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "control::store::tests::registers_until_it_is_killed",
            ])
            .env("PORTICO_TEST_STATE_DIR", dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut heard = 0;
        // The later rounds find the first ones' apps and say them again.
        for line in lines
            .map_while(Result::ok)
            .filter(|line| line.contains("acknowledged app-"))
        {
            heard += 1;
            if heard == 20 * round {
                assert!(line.ends_with(&format!("app-{}", heard - 1)), "{line}");
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        acknowledged = acknowledged.max(heard);
        let (_store, contents) = Store::open(&store_path(dir.path())).unwrap();
        let names: Vec<_> = contents.apps.iter().map(|app| &*app.name).collect();
        for n in 0..acknowledged {
            assert!(
                names.contains(&format!("app-{n}").as_str()),
                "app-{n} of {acknowledged} is lost"
            );
        }
        assert_eq!(contents.revision as usize, names.len());
        assert!(names.len() <= acknowledged + 1, "more than was asked for");
    }
    assert!(acknowledged >= 60);
}
