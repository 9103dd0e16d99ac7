//! Between the API's shapes and the model. Nothing else knows both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::wire::{self, Config, Devices};
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{
    Bytes, Changes, CreateOpts, Digest, EnvironmentName, GuestPath, HostMount, Instance, InstanceName, Labels,
    LiveInstance, LiveSnapshot, Memory, Note, Snapshot, Status,
};

/// Before the key of a label.
const LABEL: &str = "user.sbx-apply.";
/// Key: a note on an environment, in the profile that keeps it.
const NOTE: &str = "user.sbx-apply.note";
/// Key: the project whose environment's note a profile keeps.
const PROJECT: &str = "user.sbx-apply.project";
/// Before the name of an environment variable.
const ENVIRONMENT: &str = "environment.";
/// Before the name of an environment variable that is empty. The daemon takes an empty value for none at all, so
/// the variable is not set inside; but that it is declared has to be known.
const EMPTY: &str = "user.sbx-apply-empty.";
/// Before every key that is ours.
const OURS: &str = "user.sbx-apply";
const CPU: &str = "limits.cpu";
const MEMORY: &str = "limits.memory";
/// The socket inside the guest that talks to the daemon.
const GUEST_API: &str = "security.guestapi";
/// Says which settings are our own hardening and nobody's declaration.
const HARDENED: &str = "user.sbx-apply-hardened";
/// The fingerprint of the image that an instance was made from.
const BASE_IMAGE: &str = "volatile.base_image";
/// Key of a root disk's size.
const SIZE: &str = "size";

/// The words for an instance's condition (API, `status`).
pub(super) fn status(word: &str) -> Status {
    match word {
        // `Ready` is running, said by the guest itself.
        "Running" | "Ready" => Status::Running,
        "Stopped" => Status::Stopped,
        "Frozen" => Status::Frozen,
        _ => Status::Other,
    }
}

/// An instance in short.
pub(super) fn instance(from: &wire::Instance) -> Instance {
    let interfaces = from.state.iter().filter_map(|state| state.network.as_ref()).flatten();
    let addresses: BTreeSet<IpAddr> = interfaces
        .flat_map(|(_, interface)| &interface.addresses)
        .filter(|address| address.scope == "global")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    Instance {
        name: InstanceName::observed(&from.name),
        status: status(&from.status),
        addresses: addresses.into_iter().collect(),
    }
}

/// A snapshot in short.
pub(super) fn snapshot(from: &wire::Snapshot) -> Snapshot {
    Snapshot {
        label: from.name.clone(),
        size: u64::try_from(from.size).ok().filter(|size| *size > 0),
        created_at: moment(&from.created_at),
    }
}

/// A snapshot with its labels, where we took it. Every snapshot has its instance's settings, those that people
/// take by hand too, so that labels alone say nothing.
pub(super) fn live_snapshot(from: &wire::Snapshot) -> LiveSnapshot {
    let ours = order(&from.expires_at) == order(&mark(&from.name));
    LiveSnapshot {
        snapshot: snapshot(from),
        labels: if ours { labels(&from.config) } else { Labels::default() },
    }
}

/// The moment at which a snapshot of ours expires, which is never, and tells it from others. Its expiry is the
/// one thing that the daemon keeps for a snapshot alone (6.0.4: descriptions and settings in the request are
/// dropped), to the nanosecond. Those are a digest of the name, so that a snapshot that was renamed by hand is
/// ours no longer. It also keeps the instance's `snapshots.expiry` from deleting what a spec declares.
pub(super) fn mark(label: &str) -> String {
    let digest = Digest::of(label.as_bytes());
    let number = digest
        .as_str()
        .get(..8)
        .and_then(|text| u32::from_str_radix(text, 16).ok());
    format!("2999-12-31T23:59:59.{:09}Z", number.unwrap_or_default() % 1_000_000_000)
}

/// What tells a profile that keeps a note of an environment.
pub(super) fn of_environment(environment: &EnvironmentName, project: &str) -> Config {
    Config::from([
        (format!("{LABEL}{}", Labels::ENVIRONMENT), environment.to_string()),
        (PROJECT.to_owned(), project.to_owned()),
    ])
}

/// The settings of a profile that keeps a note.
pub(super) fn noted(environment: &EnvironmentName, project: &str, note: &Note) -> Config {
    let mut config = of_environment(environment, project);
    config.insert(NOTE.to_owned(), note.as_str().to_owned());
    config
}

/// The note that a profile keeps; none where it keeps none, or another environment's.
pub(super) fn note(environment: &EnvironmentName, project: &str, config: &Config) -> Option<Note> {
    let ours = of_environment(environment, project);
    let is_ours = ours.iter().all(|(key, value)| config.get(key) == Some(value));
    config.get(NOTE).filter(|_| is_ours).and_then(Note::new)
}

/// An instance as a plan needs it. Only its own settings count: what a profile gives is nobody's declaration.
pub(super) fn live(from: &wire::Instance, snapshots: &[wire::Snapshot]) -> LiveInstance {
    let own = &from.put.config;
    let size = |devices| {
        let text = root(devices).and_then(|(_, device)| device.get(SIZE))?;
        let bytes = text.parse::<Bytes>();
        Some(bytes.map_or_else(|_| text.clone(), |bytes| bytes.to_string()))
    };
    LiveInstance {
        name: InstanceName::observed(&from.name),
        status: status(&from.status),
        labels: labels(own),
        cpu: own.get(CPU).map(|text| cpu(text)),
        memory: own.get(MEMORY).map(|text| {
            text.parse::<Memory>()
                .map_or_else(|_| text.clone(), |memory| memory.to_string())
        }),
        disk: size(&from.put.devices),
        disk_effective: size(&from.expanded_devices),
        env: env(own),
        config: own
            .iter()
            .filter(|(key, value)| is_setting(key) && !(is_hardening(own, key) && *value == "false"))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        egress: None,
        workspace: Default::default(),
        snapshots: snapshots
            .iter()
            .map(|snapshot| (snapshot.name.clone(), live_snapshot(snapshot)))
            .collect(),
        created_at: moment(&from.created_at),
        location: Some(from.location.clone()).filter(|location| !location.is_empty() && location != "none"),
        image: own.get(BASE_IMAGE).cloned(),
        mounted: mounted(&from.expanded_devices),
    }
}

/// Where devices other than the root disk are mounted. The daemon takes paths as they are written: `srv//data/`.
pub(super) fn mounted(devices: &Devices) -> BTreeSet<GuestPath> {
    let disks = devices
        .values()
        .filter(|device| device.get("type").is_some_and(|kind| kind == "disk"));
    let paths = disks.filter_map(|device| {
        let mut parts: Vec<&str> = Vec::new();
        for part in device.get("path")?.split('/') {
            match part {
                "" | "." => {}
                ".." => drop(parts.pop()),
                part => parts.push(part),
            }
        }
        (!parts.is_empty()).then(|| GuestPath::observed(format!("/{}", parts.join("/"))))
    });
    paths.collect()
}

/// What of this machine is mounted: disks whose source is a path, and no volume of a pool.
pub(super) fn host_mounts(devices: &Devices) -> Vec<HostMount> {
    let disks = devices
        .values()
        .filter(|device| device.get("type").is_some_and(|kind| kind == "disk") && !device.contains_key("pool"));
    let mounts = disks.filter_map(|device| {
        let source = device.get("source").filter(|source| source.starts_with('/'))?;
        Some(HostMount {
            source: source.into(),
            readonly: device.get("readonly").is_some_and(|value| value == "true"),
        })
    });
    mounts.collect()
}

/// The labels among settings.
pub(super) fn labels(config: &Config) -> Labels {
    Labels(with_prefix(config, LABEL))
}

fn env(config: &Config) -> BTreeMap<String, String> {
    let mut env = with_prefix(config, EMPTY);
    env.values_mut().for_each(String::clear);
    env.extend(with_prefix(config, ENVIRONMENT));
    env
}

/// The settings that hold an environment variable, each with what it has to be.
fn env_config(name: &str, value: Option<&str>) -> [(String, Option<String>); 2] {
    let empty = value.filter(|value| value.is_empty()).map(|_| "true".to_owned());
    let value = value.filter(|value| !value.is_empty()).map(str::to_owned);
    [
        (format!("{ENVIRONMENT}{name}"), value),
        (format!("{EMPTY}{name}"), empty),
    ]
}

fn with_prefix(config: &Config, prefix: &str) -> BTreeMap<String, String> {
    config
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())))
        .collect()
}

/// Whether a key is a setting that a spec could declare: not the daemon's own notes, not ours, and nothing
/// that the model has its own word for.
fn is_setting(key: &str) -> bool {
    let foreign = ["volatile.", "image.", OURS, ENVIRONMENT];
    ![CPU, MEMORY].contains(&key) && foreign.iter().all(|prefix| !key.starts_with(prefix))
}

fn is_hardening(config: &Config, key: &str) -> bool {
    key == GUEST_API && config.get(HARDENED).is_some_and(|hardened| hardened == GUEST_API)
}

/// `2` for `2` and `02`; sets such as `0-1` stay as they are.
fn cpu(text: &str) -> String {
    text.parse::<u32>()
        .map_or_else(|_| text.to_owned(), |count| count.to_string())
}

/// The root disk among devices, and its name.
pub(super) fn root(devices: &Devices) -> Option<(&String, &Config)> {
    devices
        .iter()
        .find(|(_, device)| is(device, "type", "disk") && is(device, "path", "/"))
}

fn is(device: &Config, key: &str, value: &str) -> bool {
    device.get(key).is_some_and(|found| found == value)
}

/// Refuses what must not, or cannot, become a setting.
///
/// The daemon writes some values into a configuration file of lines as they are; before 6.0.6, a newline in one
/// adds a line there, which can be a command for the host to run (CVE-2026-23953). No value of any instance needs
/// a control character as much as that.
fn check<'a>(
    env: impl IntoIterator<Item = (&'a String, Option<&'a String>)>,
    config: impl IntoIterator<Item = (&'a String, Option<&'a String>)>,
    labels: impl IntoIterator<Item = (&'a String, Option<&'a String>)>,
) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    let controlled = |key: &str, value: Option<&String>| {
        key.contains(char::is_control) || value.is_some_and(|value| value.contains(char::is_control))
    };
    for (name, value) in env {
        if controlled(name, value) {
            return refuse(format!(
                "the variable {name:?} has a control character, such as a newline"
            ));
        }
        if name.is_empty() || name.contains('=') {
            return refuse(format!("`{name}` is no environment variable"));
        }
    }
    for (key, value) in config {
        if controlled(key, value) {
            return refuse(format!(
                "the setting {key:?} has a control character, such as a newline"
            ));
        }
        if !is_setting(key) {
            return refuse(format!("`{key}` is no setting that can be given"));
        }
        if value.is_some_and(String::is_empty) {
            // The daemon takes it for none, so it would be missing for ever.
            return refuse(format!("the setting `{key}` is empty; leave it out instead"));
        }
    }
    for (key, value) in labels {
        // Labels are JSON, which escapes the control characters of ASCII but one.
        if key.contains(char::is_control) || value.is_some_and(|value| value.contains(|c: char| c < ' ')) {
            return refuse(format!("the label {key:?} has a control character"));
        }
    }
    Ok(())
}

/// Settings of a new instance.
pub(super) fn config(opts: &CreateOpts) -> Result<Config> {
    fn set(map: &BTreeMap<String, String>) -> impl Iterator<Item = (&String, Option<&String>)> {
        map.iter().map(|(key, value)| (key, Some(value)))
    }
    check(set(&opts.env), set(&opts.config), set(&opts.labels.0))?;
    let mut config = opts.config.clone();
    if !config.contains_key(GUEST_API) {
        // Hardened: nothing inside needs the daemon's guest API.
        config.insert(GUEST_API.to_owned(), "false".to_owned());
        config.insert(HARDENED.to_owned(), GUEST_API.to_owned());
    }
    config.extend(opts.cpu.map(|cpu| (CPU.to_owned(), cpu.to_string())));
    config.extend(opts.memory.map(|memory| (MEMORY.to_owned(), memory.to_string())));
    let env = opts.env.iter().flat_map(|(name, value)| env_config(name, Some(value)));
    config.extend(env.filter_map(|(key, value)| Some((key, value?))));
    config.extend(label_config(&opts.labels));
    Ok(config)
}

/// Labels as settings.
pub(super) fn label_config(labels: &Labels) -> impl Iterator<Item = (String, String)> {
    labels
        .0
        .iter()
        .map(|(key, value)| (format!("{LABEL}{key}"), value.clone()))
}

/// Changes of settings by key. `None` takes a key away.
pub(super) fn config_changes(changes: &Changes) -> Result<BTreeMap<String, Option<String>>> {
    fn edits(map: &BTreeMap<String, Option<String>>) -> impl Iterator<Item = (&String, Option<&String>)> {
        map.iter().map(|(key, value)| (key, value.as_ref()))
    }
    check(edits(&changes.env), edits(&changes.config), edits(&changes.labels))?;
    let mut by_key: BTreeMap<String, Option<String>> = changes.config.clone();
    if let Some(guest_api) = changes.config.get(GUEST_API) {
        // What is no longer declared goes back to our default, not to the daemon's.
        let value = guest_api.clone().unwrap_or_else(|| "false".to_owned());
        by_key.insert(GUEST_API.to_owned(), Some(value));
        let hardened = guest_api.is_none().then(|| GUEST_API.to_owned());
        by_key.insert(HARDENED.to_owned(), hardened);
    }
    if let Some(cpu) = changes.cpu {
        by_key.insert(CPU.to_owned(), cpu.map(|cpu| cpu.to_string()));
    }
    if let Some(memory) = changes.memory {
        by_key.insert(MEMORY.to_owned(), memory.map(|memory| memory.to_string()));
    }
    for (name, value) in &changes.env {
        by_key.extend(env_config(name, value.as_deref()));
    }
    by_key.extend(
        changes
            .labels
            .iter()
            .map(|(key, value)| (format!("{LABEL}{key}"), value.clone())),
    );
    Ok(by_key)
}

/// Writes [`config_changes`], and another size of the root disk, into an instance that was read. `expanded` has
/// the devices of its profiles too: the root disk is mostly theirs, and has to become the instance's own to get a
/// size.
pub(super) fn apply(
    put: &mut wire::InstancePut,
    expanded: &Devices,
    config: &BTreeMap<String, Option<String>>,
    disk: Option<Option<Bytes>>,
) {
    for (key, value) in config {
        match value {
            Some(value) => put.config.insert(key.clone(), value.clone()),
            None => put.config.remove(key),
        };
    }
    let Some(size) = disk else { return };
    let own = root(&put.devices).map(|(name, device)| (name.clone(), device.clone()));
    let found = own.or_else(|| root(expanded).map(|(name, device)| (name.clone(), device.clone())));
    let Some((name, mut device)) = found else { return };
    match size {
        Some(size) => {
            device.insert(SIZE.to_owned(), size.to_string());
        }
        None => {
            device.remove(SIZE);
        }
    }
    put.devices.insert(name, device);
}

/// A root disk of its own: in that pool, of that size.
pub(super) fn root_device(pool: &str, size: Option<Bytes>) -> Config {
    let mut device = Config::from([
        ("type".to_owned(), "disk".to_owned()),
        ("path".to_owned(), "/".to_owned()),
        ("pool".to_owned(), pool.to_owned()),
    ]);
    device.extend(size.map(|size| (SIZE.to_owned(), size.to_string())));
    device
}

/// A network card of its own on that network.
pub(super) fn network_device(network: &str) -> Config {
    Config::from([
        ("type".to_owned(), "nic".to_owned()),
        ("name".to_owned(), "eth0".to_owned()),
        ("network".to_owned(), network.to_owned()),
    ])
}

/// Something to order RFC 3339 moments by, down to nanoseconds.
pub(super) fn order(text: &str) -> (Option<u64>, u32) {
    let digits = text
        .get(20..)
        .unwrap_or_default()
        .bytes()
        .take_while(u8::is_ascii_digit);
    // The daemon leaves closing zeros out, so digits count from the left.
    let nanoseconds = digits
        .chain(std::iter::repeat(b'0'))
        .take(9)
        .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    (moment(text), nanoseconds)
}

/// Seconds since 1970 of an RFC 3339 moment. None for those before 1970-01-02, by which the daemon says
/// never, and for texts that are none.
pub(super) fn moment(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !marks.iter().all(|(at, mark)| text.as_bytes().get(*at) == Some(mark)) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let seconds = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    let rest = text
        .get(19..)?
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match rest.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), ..] if rest.len() == 6 => {
            let at = text.len() - 5;
            let seconds = number(at..at + 2)? * 3_600 + number(at + 3..at + 5)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970-01-01 in the proleptic Gregorian calendar, counted in years that start in March, so that
    // the leap day is a year's last.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    u64::try_from(days * 86_400 + seconds - offset)
        .ok()
        .filter(|at| *at >= 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Config {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn read(text: &str) -> wire::Instance {
        serde_json::from_str(text).expect("an instance")
    }

    #[test]
    fn only_own_settings_count_and_in_normal_form() {
        let from = read(
            r#"{"name":"demo-a","status":"Running","created_at":"2026-11-23T14:14:54.7Z","location":"none",
            "config":{"limits.cpu":"2","limits.memory":"1073741824","environment.A":"b","user.sbx-apply.sandbox":"a",
            "user.note":"x","volatile.uuid":"u","image.os":"o","boot.autostart":"false"},
            "devices":{"root":{"type":"disk","path":"/","pool":"p","size":"10240MiB"}},
            "expanded_config":{"limits.processes":"5"},"profiles":["default"],
            "expanded_devices":{"root":{"type":"disk","path":"/","pool":"p","size":"20480MiB"}}}"#,
        );
        let live = live(&from, &[]);
        assert_eq!(live.cpu.as_deref(), Some("2"));
        assert_eq!(live.memory.as_deref(), Some("1GiB"));
        assert_eq!(live.disk.as_deref(), Some("10GiB"));
        assert_eq!(live.disk_effective.as_deref(), Some("20GiB"));
        assert_eq!(live.env, map(&[("A", "b")]));
        assert_eq!(live.config, map(&[("boot.autostart", "false"), ("user.note", "x")]));
        assert_eq!(live.labels.0, map(&[("sandbox", "a")]));
        assert_eq!(live.location, None);
        assert_eq!(live.created_at, Some(1_795_443_294));
    }

    #[test]
    fn what_is_mounted_is_found_however_it_is_written() {
        let from = read(
            r#"{"name":"a","devices":{},"expanded_devices":{
            "root":{"type":"disk","path":"/","pool":"p"},
            "eth0":{"type":"nic","path":"/nic"},
            "pool":{"type":"disk","pool":"p","source":"v"},
            "one":{"type":"disk","source":"/h","path":"/srv/data/"},
            "two":{"type":"disk","source":"/h","path":"srv//./x/../more"}}}"#,
        );
        let paths = live(&from, &[]).mounted;
        let paths: Vec<&str> = paths.iter().map(GuestPath::as_str).collect();
        assert_eq!(paths, ["/srv/data", "/srv/more"]);
    }

    #[test]
    fn changes_set_and_unset_and_leave_the_rest() {
        let mut from = read(
            r#"{"name":"a","config":{"limits.cpu":"2","environment.A":"b","volatile.uuid":"u"},
            "expanded_devices":{"disk0":{"type":"disk","path":"/","pool":"p"}}}"#,
        );
        let changes = Changes {
            cpu: Some(None),
            memory: Some(Some(Memory::Percent(10))),
            disk: Some(Some(Bytes(1 << 30))),
            env: BTreeMap::from([
                ("A".to_owned(), None),
                ("B".to_owned(), Some("c".to_owned())),
                ("C".to_owned(), Some(String::new())),
            ]),
            labels: BTreeMap::from([("ttl".to_owned(), Some("1h".to_owned()))]),
            config: BTreeMap::from([(GUEST_API.to_owned(), None)]),
        };
        let edits = config_changes(&changes).expect("allowed");
        apply(&mut from.put, &from.expanded_devices, &edits, changes.disk);
        let expected = [
            ("environment.B", "c"),
            ("limits.memory", "10%"),
            ("security.guestapi", "false"),
            ("user.sbx-apply-empty.C", "true"),
            ("user.sbx-apply-hardened", "security.guestapi"),
            ("user.sbx-apply.ttl", "1h"),
            ("volatile.uuid", "u"),
        ];
        assert_eq!(from.put.config, map(&expected));
        assert_eq!(env(&from.put.config), map(&[("B", "c"), ("C", "")]));
        assert_eq!(from.put.devices["disk0"], root_device("p", Some(Bytes(1 << 30))));
    }

    #[test]
    fn our_own_hardening_is_nobodys_declaration() {
        let shown = |config: &Config| {
            let mut from = read(r#"{"name":"a"}"#);
            from.put.config = config.clone();
            live(&from, &[]).config
        };
        let config = |opts: &CreateOpts| config(opts).expect("allowed");
        let mut opts = CreateOpts::default();
        assert_eq!(config(&opts)[GUEST_API], "false");
        assert_eq!(shown(&config(&opts)), map(&[]));
        let mut opened = config(&opts);
        opened.insert(GUEST_API.to_owned(), "true".to_owned());
        assert_eq!(shown(&opened), map(&[(GUEST_API, "true")]));
        opts.config.insert(GUEST_API.to_owned(), "false".to_owned());
        assert_eq!(shown(&config(&opts)), opts.config);
    }

    #[test]
    fn what_could_add_a_line_or_would_never_be_there_is_refused() {
        for (key, value) in [
            ("user.note", "a\nlxc.hook.start-host = /bin/true"),
            ("user.note", "a\u{85}b"),
            ("user.no\nte", "a"),
            ("user.note", ""),
            ("user.sbx-apply.sandbox", "a"),
            ("user.sbx-applying", "a"),
            ("environment.A", "a"),
            ("volatile.uuid", "a"),
        ] {
            let opts = CreateOpts {
                config: map(&[(key, value)]),
                ..CreateOpts::default()
            };
            let changes = Changes {
                config: BTreeMap::from([(key.to_owned(), Some(value.to_owned()))]),
                ..Changes::default()
            };
            assert_eq!(config(&opts).expect_err(key).kind(), ErrorKind::Invalid, "{key}");
            assert_eq!(
                config_changes(&changes).expect_err(key).kind(),
                ErrorKind::Invalid,
                "{key}"
            );
        }
        for (name, value) in [("A", "a\nb"), ("A\n", "a"), ("A", "\r"), ("A", "\0"), ("A", "\u{7f}")] {
            let opts = CreateOpts {
                env: map(&[(name, value)]),
                ..CreateOpts::default()
            };
            let changes = Changes {
                env: BTreeMap::from([(name.to_owned(), Some(value.to_owned()))]),
                ..Changes::default()
            };
            let refused = config(&opts).expect_err(name).to_string();
            assert!(!refused.contains(char::is_control), "{refused}");
            assert_eq!(
                config_changes(&changes).expect_err(name).kind(),
                ErrorKind::Invalid,
                "{name:?}"
            );
        }
        let label = Changes {
            labels: BTreeMap::from([("ttl".to_owned(), Some("1h\nx".to_owned()))]),
            ..Changes::default()
        };
        assert_eq!(config_changes(&label).expect_err("refused").kind(), ErrorKind::Invalid);
    }

    #[test]
    fn only_snapshots_with_our_mark_have_labels() {
        let labelled = |name: &str, expires_at: &str| {
            let text =
                format!(r#"{{"name":"{name}","expires_at":"{expires_at}","config":{{"user.sbx-apply.sandbox":"a"}}}}"#);
            let from: wire::Snapshot = serde_json::from_str(&text).expect("a snapshot");
            !live_snapshot(&from).labels.0.is_empty()
        };
        assert!(labelled("ready", &mark("ready")));
        assert!(!labelled("renamed", &mark("ready")));
        assert!(!labelled("ready", "0001-01-01T00:00:00Z"));
        assert!(!labelled("ready", ""));
        // As another daemon may write it.
        assert!(labelled(
            "ready",
            &mark("ready")
                .replace("2999-12-31T23:59:59", "3000-01-01T01:29:59")
                .replace('Z', "+01:30")
        ));
    }

    #[test]
    fn moments_are_read_and_never_is_none() {
        for (text, at) in [
            ("2026-11-23T14:14:54.705608531Z", Some(1_795_443_294)),
            ("2026-11-23T15:14:54+01:00", Some(1_795_443_294)),
            ("2024-02-29T00:00:00Z", Some(1_709_164_800)),
            ("1970-01-01T00:00:00Z", None),
            ("0001-01-01T00:00:00Z", None),
            ("", None),
            ("2026-11-23 14:14:54Z", None),
            ("2026-11-23T14:14:54", None),
        ] {
            assert_eq!(moment(text), at, "{text}");
        }
        let order = |fraction: &str| order(&format!("2026-11-23T14:14:54{fraction}"));
        assert!(order("Z") < order(".09Z") && order(".09Z") < order(".1Z") && order(".1Z") < order(".12+00:00"));
    }
}
