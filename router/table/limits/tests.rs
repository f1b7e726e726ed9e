//! The published set: who is limited by what, over changes of the numbers.

use std::net::IpAddr;

use super::*;
use crate::feed::messages::{HeaderRecord, LimitRecord, PerRecord, RateRecord};

const SECOND_NS: u64 = 1_000_000_000;

/// A request.
#[derive(Clone)]
struct Asked {
    app: Option<&'static str>,
    path: &'static str,
    client: IpAddr,
    headers: Vec<(&'static str, &'static str)>,
}

impl Subject for Asked {
    fn app(&self) -> Option<&str> {
        self.app
    }

    fn path(&self) -> &[u8] {
        self.path.as_bytes()
    }

    fn client(&self) -> IpAddr {
        self.client
    }

    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let found = self.headers.iter().filter(move |(known, _)| *known == name);
        found.map(|(_, value)| value.as_bytes())
    }

    fn has(&self, name: &str, value: &str) -> bool {
        self.headers.contains(&(name, value))
    }
}

fn asked(app: Option<&'static str>, path: &'static str) -> Asked {
    Asked {
        app,
        path,
        client: IpAddr::from([192, 0, 2, 1]),
        headers: Vec::new(),
    }
}

fn of_rate(name: &str, count: u32, seconds: u32) -> LimitRecord {
    LimitRecord {
        name: name.into(),
        rate: Some(RateRecord {
            count,
            seconds,
            burst: None,
        }),
        ..LimitRecord::default()
    }
}

fn of_crowd(name: &str, most: u32) -> LimitRecord {
    LimitRecord {
        name: name.into(),
        concurrency: Some(most),
        ..LimitRecord::default()
    }
}

fn install(limits: &Limits, records: &[LimitRecord]) -> Vec<String> {
    let set = LimitSet {
        limits: records.to_vec(),
        ..LimitSet::default()
    };
    limits.install(&set, SECOND_NS)
}

fn counted(limits: &Limits, name: &str, metric: &str) -> f64 {
    let samples = limits.samples();
    let is_it = |sample: &&Sample| sample.name == metric && sample.labels[1] == name;
    samples
        .iter()
        .find(is_it)
        .map_or(-1.0, |sample| sample.value)
}

#[test]
fn without_limits_there_are_none() {
    let limits = Limits::default();
    assert!(!limits.is_any());
    install(&limits, &[of_rate("retries", 0, 1)]);
    assert!(!limits.is_any(), "the router's own are none of a request's");
    install(&limits, &[of_rate("a", 0, 1)]);
    assert!(limits.is_any());
    install(&limits, &[]);
    assert!(!limits.is_any());
}

#[test]
fn a_limit_is_for_whom_it_says() {
    let limits = Limits::default();
    let publish = LimitRecord {
        app: "shop".into(),
        path: "/publish/".into(),
        header: Some(HeaderRecord {
            name: "X-Plan".into(),
            value: "free".into(),
        }),
        ..of_rate("publish", 0, 1)
    };
    install(&limits, &[publish]);
    let free = |app, path| Asked {
        headers: vec![("x-plan", "paid"), ("x-plan", "free")],
        ..asked(app, path)
    };
    let passes = |asked: &Asked| limits.admit(asked, 0).is_ok();
    for path in ["/publish", "/publish/", "/publish/x"] {
        assert!(!passes(&free(Some("shop"), path)), "{path}");
        assert!(passes(&asked(Some("shop"), path)), "{path}, not free");
        assert!(passes(&free(Some("other"), path)), "{path}, elsewhere");
        assert!(passes(&free(None, path)), "{path}, nowhere");
    }
    for path in ["/", "/publisher", "/x/publish"] {
        assert!(passes(&free(Some("shop"), path)), "{path}");
    }
    let refused = limits
        .admit(&free(Some("shop"), "/publish"), 0)
        .unwrap_err();
    assert_eq!((&*refused.name, refused.retry_after), ("publish", 5));
}

#[test]
fn a_refusal_costs_the_other_limits_nothing() {
    let limits = Limits::default();
    let stopped = LimitRecord {
        path: "/stopped".into(),
        ..of_rate("z", 0, 1)
    };
    let keyed = LimitRecord {
        per: Some(PerRecord::default()),
        ..of_rate("k", 1, 3_600)
    };
    install(
        &limits,
        &[of_rate("a", 1, 3_600), of_crowd("c", 1), keyed, stopped],
    );
    for _ in 0..5 {
        let refused = limits
            .admit(&asked(None, "/stopped"), SECOND_NS)
            .unwrap_err();
        assert_eq!(&*refused.name, "z");
    }
    let holds = limits.admit(&asked(None, "/"), SECOND_NS).unwrap();
    assert_eq!(holds.len(), 1);
    assert_eq!(counted(&limits, "z", "portico_limit_refused_total"), 5.0);
    assert_eq!(counted(&limits, "a", "portico_limit_admitted_total"), 1.0);
}

#[test]
fn a_new_number_forgets_neither_who_is_inside_nor_what_was_counted() {
    let limits = Limits::default();
    install(&limits, &[of_crowd("c", 2)]);
    let admit = || limits.admit(&asked(None, "/"), 0);
    let (first, second) = (admit().unwrap(), admit().unwrap());
    assert!(admit().is_err());
    install(&limits, &[of_crowd("c", 1)]);
    drop(first);
    assert!(admit().is_err(), "one is inside still");
    drop(second);
    let held = admit().unwrap();
    // Gone, come back and made a rate meanwhile: the hold harms nobody.
    install(&limits, &[]);
    install(&limits, &[of_rate("c", 5, 1)]);
    drop(held);
    install(&limits, &[of_rate("c", 1, 3_600)]);
    assert!(admit().is_ok() && admit().is_err());
    install(&limits, &[of_rate("c", 2, 3_600)]);
    assert!(admit().is_err(), "the hour's burst was used up");
}

#[test]
fn each_client_and_each_value_has_its_own() {
    let limits = Limits::default();
    let per = |name: &str, header: &str| LimitRecord {
        per: Some(PerRecord {
            header: header.into(),
        }),
        ..of_rate(name, 1, 3_600)
    };
    install(&limits, &[per("clients", "")]);
    let from = |client: &str| Asked {
        client: client.parse().unwrap(),
        ..asked(None, "/")
    };
    let passes = |asked: &Asked| limits.admit(asked, 0).is_ok();
    for client in ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8:1::1"] {
        assert!(passes(&from(client)) && !passes(&from(client)), "{client}");
    }
    assert!(
        !passes(&from("2001:db8::ffff:2")),
        "of a network that has had its own"
    );
    install(&limits, &[per("keys", "X-Api-Key")]);
    let with = |key| Asked {
        headers: vec![("x-api-key", key)],
        ..asked(None, "/")
    };
    assert!(passes(&with("a")) && passes(&with("b")) && !passes(&with("a")));
    assert!(passes(&asked(None, "/")) && !passes(&asked(None, "/")));
    // All lines of a header count, in their order and each for itself.
    let lines = |keys: &[&'static str]| Asked {
        headers: keys.iter().map(|key| ("x-api-key", *key)).collect(),
        ..asked(None, "/")
    };
    for keys in [["a", "b"], ["b", "a"], ["a", "c"], ["ab", ""], ["", "ab"]] {
        assert!(passes(&lines(&keys)) && !passes(&lines(&keys)), "{keys:?}");
    }
    assert_eq!(limits.bytes(), 2 << 20);
}

#[test]
fn what_a_later_version_means_leaves_what_was() {
    let limits = Limits::default();
    install(&limits, &[of_rate("a", 0, 1)]);
    let strange = LimitRecord {
        name: "a".into(),
        ..LimitRecord::default()
    };
    assert_eq!(install(&limits, &[strange]), ["a"]);
    assert!(limits.admit(&asked(None, "/"), 0).is_err());
    assert_eq!(
        install(&limits, &[of_rate("b", 1, 7)]),
        ["b"],
        "no such time"
    );
    assert!(!limits.is_any());
    let too_many: Vec<_> = (0..KEYED_MAX + 1)
        .map(|n| LimitRecord {
            per: Some(PerRecord::default()),
            ..of_crowd(&format!("k{n:03}"), 1)
        })
        .collect();
    assert_eq!(install(&limits, &too_many), ["k032"]);
}

#[test]
fn the_routers_own_flows_are_limited_by_name() {
    let limits = Limits::default();
    let flow = &limits.flows.retries;
    assert!((0..1_000).all(|_| flow.take(0)));
    install(&limits, &[of_rate("retries", 2, 1)]);
    let taken = |now_us| (0..10).filter(|_| flow.take(now_us)).count();
    assert_eq!((taken(5_000_000), taken(5_500_000)), (2, 1));
    install(&limits, &[of_rate("retries", 0, 1)]);
    assert_eq!(taken(60_000_000), 0);
    install(&limits, &[]);
    assert_eq!(taken(60_000_000), 10);
    assert_eq!(
        counted(&limits, "retries", "portico_limit_refused_total"),
        27.0
    );
}
