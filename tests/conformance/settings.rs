//! Labels, variables, settings and limits.

use std::collections::BTreeMap;

use sbx_apply::backend::{Changes, CreateOpts, ErrorKind};
use sbx_apply::model::{Bytes, Capability, Labels, Memory};

use super::fixture::{Fixture, fails};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn edits(pairs: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.map(str::to_owned)))
        .collect()
}

/// Settings, and a bound on processes where there are bounds.
fn processes(f: &Fixture, settings: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut settings = map(settings);
    if f.able(Capability::CpuLimit) {
        settings.insert("limits.processes".to_owned(), "500".to_owned());
    }
    settings
}

/// Settings, where the backend takes some.
fn configured<K: Ord, V>(f: &Fixture, settings: BTreeMap<K, V>) -> BTreeMap<K, V> {
    match f.able(Capability::Config) {
        true => settings,
        false => BTreeMap::new(),
    }
}

/// What every backend keeps, and the limits of those that have them.
fn declared(f: &Fixture, name: &str) -> CreateOpts {
    CreateOpts {
        cpu: f.able(Capability::CpuLimit).then_some(1),
        memory: f
            .able(Capability::MemoryLimit)
            .then_some(Memory::Bytes(Bytes(256 << 20))),
        disk: f.able(Capability::DiskSize).then_some(Bytes(1 << 30)),
        env: map(&[("PLAIN", "1"), ("ODD", "a=b 'c' \"d\" $e ü")]),
        config: configured(f, processes(f, &[("user.note", "a note"), ("boot.autostart", "false")])),
        labels: Labels(map(&[
            (Labels::ENVIRONMENT, "elsewhere"),
            (Labels::APPLIED, r#"{"file":{"/a":{"mode":"0644"}},"ü":"\n"}"#),
        ])),
        ..f.opts(name)
    }
}

pub(crate) async fn settings_come_back_in_normal_form(f: &Fixture) {
    let opts = declared(f, "one");
    f.backend.create(&opts).await.expect("creates");
    let live = f.observed(&f.name("one")).await;
    assert_eq!(live.cpu, f.able(Capability::CpuLimit).then(|| "1".to_owned()));
    assert_eq!(
        live.memory,
        f.able(Capability::MemoryLimit).then(|| "256MiB".to_owned())
    );
    assert_eq!(live.disk, f.able(Capability::DiskSize).then(|| "1GiB".to_owned()));
    assert_eq!(live.env, opts.env);
    assert_eq!(live.config, opts.config);
    assert_eq!(live.labels, opts.labels);
}

pub(crate) async fn shares_of_memory_come_back(f: &Fixture) {
    if !f.able(Capability::MemoryShare) {
        f.unsupported("shares of memory come back: this backend takes none here");
        return;
    }
    let mut opts = f.opts("one");
    opts.memory = Some(Memory::Percent(50));
    f.backend.create(&opts).await.expect("creates");
    assert_eq!(f.observed(&f.name("one")).await.memory.as_deref(), Some("50%"));
}

pub(crate) async fn what_was_not_declared_is_not_told(f: &Fixture) {
    let name = f.stopped("one").await;
    let live = f.observed(&name).await;
    assert_eq!((live.cpu, live.memory, live.disk), (None, None, None));
    assert_eq!((live.env, live.config), (BTreeMap::new(), BTreeMap::new()));
    assert_eq!(live.labels, Labels::default());
    assert!(live.snapshots.is_empty());
}

pub(crate) async fn changing_sets_and_unsets_and_leaves_the_rest(f: &Fixture) {
    f.backend.create(&declared(f, "one")).await.expect("creates");
    let name = f.name("one");
    let changes = Changes {
        cpu: f.able(Capability::CpuLimit).then_some(Some(2)),
        memory: Some(None),
        disk: f.able(Capability::DiskSize).then_some(Some(Bytes(2 << 30))),
        env: edits(&[("PLAIN", Some("2")), ("ODD", None), ("NEW", Some(""))]),
        config: configured(f, edits(&[("limits.processes", None), ("user.note", Some("another"))])),
        labels: edits(&[(Labels::ENVIRONMENT, None), (Labels::TTL, Some("24h"))]),
    };
    f.backend.configure(&name, &changes).await.expect("configures");
    let live = f.observed(&name).await;
    assert_eq!(live.cpu, f.able(Capability::CpuLimit).then(|| "2".to_owned()));
    assert_eq!(live.memory, None);
    assert_eq!(live.disk, f.able(Capability::DiskSize).then(|| "2GiB".to_owned()));
    assert_eq!(live.env, map(&[("PLAIN", "2"), ("NEW", "")]));
    assert_eq!(
        live.config,
        configured(f, map(&[("user.note", "another"), ("boot.autostart", "false")]))
    );
    assert_eq!(live.labels.get(Labels::ENVIRONMENT), None);
    assert_eq!(live.labels.get(Labels::TTL), Some("24h"));
    assert!(live.labels.get(Labels::APPLIED).is_some());
    // What is unset may be unset again.
    f.backend.configure(&name, &changes).await.expect("configures again");
}

pub(crate) async fn no_change_is_no_error(f: &Fixture) {
    f.backend.create(&declared(f, "one")).await.expect("creates");
    let before = f.observed(&f.name("one")).await;
    let none = f.backend.configure(&f.name("one"), &Changes::default()).await;
    none.expect("configures nothing");
    assert_eq!(f.observed(&f.name("one")).await, before);
}

pub(crate) async fn an_unknown_setting_is_refused(f: &Fixture) {
    let mut opts = f.opts("one");
    opts.config = map(&[("no.such.setting", "1")]);
    fails(f.backend.create(&opts).await, ErrorKind::Invalid);
    fails(f.backend.get(&f.name("one")).await, ErrorKind::NotFound);
}

pub(crate) async fn what_could_add_a_line_to_a_file_of_the_host_is_refused(f: &Fixture) {
    let evil = "x\nlxc.hook.start-host = /bin/true";
    for (env, config) in [
        (map(&[("A", evil)]), map(&[])),
        (map(&[("A\nB", "x")]), map(&[])),
        (map(&[]), map(&[("user.note", evil)])),
        (map(&[]), map(&[("user.note\nB", "x")])),
    ] {
        let opts = CreateOpts {
            env: env.clone(),
            config: config.clone(),
            ..f.opts("none")
        };
        fails(f.backend.create(&opts).await, ErrorKind::Invalid);
        fails(f.backend.get(&f.name("none")).await, ErrorKind::NotFound);
        let set = |map: BTreeMap<String, String>| map.into_iter().map(|(key, value)| (key, Some(value))).collect();
        let changes = Changes {
            env: set(env),
            config: set(config),
            ..Changes::default()
        };
        // Before it is even looked for.
        fails(f.backend.configure(&f.name("none"), &changes).await, ErrorKind::Invalid);
    }
}

pub(crate) async fn settings_that_would_never_be_there_are_refused(f: &Fixture) {
    for (key, value) in [
        ("user.note", ""),
        ("user.sbx-apply.ttl", "1h"),
        ("user.sbx-apply-x", "1"),
    ] {
        let mut opts = f.opts("none");
        opts.config = map(&[(key, value)]);
        fails(f.backend.create(&opts).await, ErrorKind::Invalid);
    }
}

pub(crate) async fn a_refused_change_changes_nothing(f: &Fixture) {
    f.backend.create(&declared(f, "one")).await.expect("creates");
    let name = f.name("one");
    let before = f.observed(&name).await;
    let changes = Changes {
        env: edits(&[("PLAIN", Some("2"))]),
        config: edits(&[("no.such.setting", Some("1"))]),
        labels: edits(&[(Labels::COMPLETE, Some("true"))]),
        ..Changes::default()
    };
    fails(f.backend.configure(&name, &changes).await, ErrorKind::Invalid);
    assert_eq!(f.observed(&name).await, before);
}
