//! Files as they come, go, are half-written, swapped and unusable.

use std::os::unix::fs::symlink;

use super::*;
use crate::feed::messages::{LimitRecord, RateRecord};

struct Stage {
    folder: tempfile::TempDir,
    limits: Limits,
    events: Events,
    rates: Rates,
}

impl Stage {
    fn new() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        Stage {
            rates: Rates::new(folder.path().into(), None),
            limits: Limits::new(BTreeMap::new()),
            events: Events::default(),
            folder,
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn looks(&mut self, times: u32) {
        for _ in 0..times {
            self.rates.look(&self.limits, &self.events);
        }
    }

    fn number(&self, name: &str) -> Option<String> {
        let known = self.limits.get(name)?;
        Some(Number::of(&known.holds?)?.to_string())
    }

    fn complaints(&self) -> usize {
        self.events.len()
    }
}

#[test]
fn a_file_counts_at_the_next_look() {
    let mut stage = Stage::new();
    stage.looks(1);
    for (text, held) in [
        ("10\n", "10/s"),
        ("20", "20/s"),
        (" 600/m \r\n", "600/m"),
        ("0", "0/s"),
    ] {
        stage.write("publish", text);
        stage.looks(1);
        assert_eq!(stage.number("publish").as_deref(), Some(held));
    }
    fs::remove_file(stage.folder.path().join("publish")).unwrap();
    stage.looks(1);
    assert_eq!(stage.number("publish"), None);
    assert_eq!(stage.complaints(), 0);
}

#[test]
fn what_cannot_be_used_leaves_the_last_good_number_and_is_told_once() {
    let garbage = [
        "-1",
        "ten",
        "",
        "1.5",
        "99999999999",
        "10/s 20/s",
        "\u{0}",
        &"1".repeat(100),
    ];
    for text in garbage {
        let mut stage = Stage::new();
        stage.write("publish", "10");
        stage.looks(20);
        stage.write("publish", text);
        stage.looks(40);
        assert_eq!(stage.number("publish").as_deref(), Some("10/s"), "{text:?}");
        assert_eq!(stage.complaints(), 1, "{text:?}");
        assert_eq!(stage.events.latest(1)[0].kind, "rate_file_refused");
        stage.write("publish", "11");
        stage.looks(2);
        assert_eq!(stage.number("publish").as_deref(), Some("11/s"));
        stage.write("publish", text);
        stage.looks(20);
        assert_eq!(stage.complaints(), 2, "{text:?}, again");
    }
}

#[test]
fn what_a_file_says_is_told_to_nobody() {
    let mut stage = Stage::new();
    let secret = "c0ffee".repeat(8);
    fs::write(stage.folder.path().join(".secret"), &secret).unwrap();
    symlink(".secret", stage.folder.path().join("publish")).unwrap();
    stage.write("probes", "12345/s");
    stage.looks(20);
    assert_eq!(stage.complaints(), 2);
    for event in stage.events.latest(2) {
        assert!(event.text.contains(" bytes: "), "{}", event.text);
        for said in [&secret[..6], "1234"] {
            assert!(!event.text.contains(said), "{}", event.text);
        }
    }
}

#[test]
fn a_file_seen_half_written_is_no_complaint() {
    let mut stage = Stage::new();
    for round in 0..50 {
        stage.write("publish", "");
        stage.looks(1);
        stage.write("publish", "10/");
        stage.looks(1);
        stage.write("publish", "10/m");
        stage.looks(1);
        assert_eq!(stage.number("publish").as_deref(), Some("10/m"), "{round}");
    }
    assert_eq!(stage.complaints(), 0);
}

#[test]
fn links_are_followed_and_their_swap_is_seen() {
    let mut stage = Stage::new();
    let at = |name: &str| stage.folder.path().join(name);
    for (folder, text) in [("..1", "10"), ("..2", "20")] {
        fs::create_dir(at(folder)).unwrap();
        fs::write(at(folder).join("publish"), text).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/publish", at("publish")).unwrap();
    let (data, next) = (at("..data"), at("..next"));
    stage.looks(20);
    assert_eq!(stage.number("publish").as_deref(), Some("10/s"));
    symlink("..2", &next).unwrap();
    fs::rename(&next, &data).unwrap();
    stage.looks(1);
    assert_eq!(stage.number("publish").as_deref(), Some("20/s"));
    fs::remove_file(&data).unwrap();
    stage.looks(20);
    assert_eq!(
        stage.number("publish").as_deref(),
        Some("20/s"),
        "it leads nowhere"
    );
    assert_eq!(stage.complaints(), 1);
}

#[test]
fn what_is_no_file_is_not_opened() {
    let mut stage = Stage::new();
    fs::create_dir(stage.folder.path().join("folder")).unwrap();
    symlink("/dev/zero", stage.folder.path().join("zero")).unwrap();
    symlink("loop", stage.folder.path().join("loop")).unwrap();
    stage.write("Upper", "1");
    stage.write(".hidden", "1");
    stage.write("backup~", "1");
    stage.looks(20);
    assert_eq!(stage.complaints(), 4);
    assert!(stage.limits.follow().borrow().limits.is_empty());
}

/// What held before a restart, by files of these names.
fn kept(names: &[&str]) -> LimitSet {
    let record = |name: &&str| LimitRecord {
        name: (*name).into(),
        rate: Some(RateRecord {
            count: 7,
            seconds: 60,
            burst: None,
        }),
        is_from_file: true,
        ..LimitRecord::default()
    };
    LimitSet {
        limits: names.iter().map(record).collect(),
        ..LimitSet::default()
    }
}

#[test]
fn a_folder_that_cannot_be_read_after_a_restart_lifts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("rates");
    fs::write(&plain, "").unwrap();
    let mut stage = Stage {
        rates: Rates::new(plain.clone(), Some(&kept(&["publish"]))),
        folder,
        ..Stage::new()
    };
    stage.looks(20);
    assert_eq!(stage.number("publish").as_deref(), Some("7/m"));
    assert_eq!(stage.complaints(), 1);
    fs::remove_file(&plain).unwrap();
    fs::create_dir(&plain).unwrap();
    stage.looks(1);
    assert_eq!(stage.number("publish"), None, "it is not there");
}

#[test]
fn a_number_that_was_good_before_a_restart_stands() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("publish"), "rubbish").unwrap();
    let kept = kept(&["gone", "publish"]);
    let mut stage = Stage {
        rates: Rates::new(folder.path().into(), Some(&kept)),
        folder,
        ..Stage::new()
    };
    stage.looks(20);
    assert_eq!(stage.number("publish").as_deref(), Some("7/m"));
    assert_eq!(stage.number("gone"), None);
}
