//! Mounts, volumes and ports as devices: their names, their settings, and what is read back. Pure.
//!
//! A device is ours when it has the name that we would give it. All others are somebody's, and left alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::backend::incus::wire::{Config, Devices};
use crate::model::{AttachedMount, AttachedVolume, Digest, GuestPath, GuestPort, Protocol, VolumeKey, Workspace};

const MOUNT: &str = "sbx-mount-";
const GUARD: &str = "sbx-guard-";
const VOLUME: &str = "sbx-volume-";
const PORT: &str = "sbx-port-";

/// Where copies of guarded files are kept, and whether the host has ::1.
#[derive(Debug, Clone)]
pub(in crate::backend::incus) struct Host {
    /// A folder that nobody in a sandbox can write to; none where there is none.
    pub(super) guards: Option<PathBuf>,
    pub(super) ipv6: bool,
}

fn short(text: &str) -> String {
    let digest = Digest::of(text.as_bytes());
    digest.as_str().get(..16).unwrap_or_default().to_owned()
}

fn config<const N: usize>(pairs: [(&str, &str); N]) -> Config {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// What a volume is called in its pool.
pub(super) fn volume_name(key: &VolumeKey) -> String {
    format!(
        "sbx-{}",
        short(&format!("{}/{}/{}", key.environment, key.sandbox, key.name))
    )
}

/// The copy of a guarded file.
pub(super) fn copy_of(guards: &Path, path: &GuestPath) -> PathBuf {
    guards.join(short(path.as_str()))
}

/// The paths in the sandbox of what a mount guards.
pub(super) fn guarded<'a>(path: &'a GuestPath, mount: &'a AttachedMount) -> impl Iterator<Item = GuestPath> + 'a {
    mount.guarded.iter().map(|below| path.join(below))
}

/// Takes a mount's devices away, those that guard it too.
pub(super) fn remove_mount(devices: &mut Devices, path: &GuestPath) {
    devices.remove(&mount_name(path));
    devices.retain(|name, device| {
        let at = device.get("path").and_then(|at| GuestPath::new(at.as_str()).ok());
        !(name.starts_with(GUARD) && at.is_some_and(|at| at.lies_in(path) && *name == guard_name(&at)))
    });
}

/// Adds a mount's devices.
pub(super) fn add_mount(devices: &mut Devices, path: &GuestPath, mount: &AttachedMount, host: &Host) {
    devices.insert(mount_name(path), mount_device(path, &mount.source, mount.readonly));
    for at in guarded(path, mount) {
        let copy = host.guards.as_deref().map(|guards| copy_of(guards, &at));
        let copy = copy.unwrap_or_default().to_string_lossy().into_owned();
        devices.insert(guard_name(&at), mount_device(&at, &copy, true));
    }
}

fn mount_name(path: &GuestPath) -> String {
    format!("{MOUNT}{}", short(path.as_str()))
}

fn guard_name(path: &GuestPath) -> String {
    format!("{GUARD}{}", short(path.as_str()))
}

fn mount_device(path: &GuestPath, source: &str, readonly: bool) -> Config {
    let mut device = config([
        ("type", "disk"),
        ("path", path.as_str()),
        ("source", source),
        ("shift", "true"),
    ]);
    if readonly {
        device.insert("readonly".to_owned(), "true".to_owned());
    }
    device
}

pub(super) fn remove_volume(devices: &mut Devices, name: &str) {
    devices.remove(&format!("{VOLUME}{name}"));
}

pub(super) fn add_volume(devices: &mut Devices, key: &VolumeKey, volume: &AttachedVolume, pool: &str) {
    let device = volume_device(volume.path.as_str(), pool, &volume_name(key));
    devices.insert(format!("{VOLUME}{}", key.name), device);
}

fn volume_device(path: &str, pool: &str, source: &str) -> Config {
    config([("type", "disk"), ("path", path), ("pool", pool), ("source", source)])
}

pub(super) fn remove_port(devices: &mut Devices, guest: GuestPort) {
    for name in port_names(guest) {
        devices.remove(&name);
    }
}

pub(super) fn add_port(devices: &mut Devices, guest: GuestPort, host: u16, ipv6: bool) {
    let [first, second] = port_names(guest);
    devices.insert(first, port_device(guest, "127.0.0.1", host));
    if ipv6 {
        devices.insert(second, port_device(guest, "[::1]", host));
    }
}

fn port_names(guest: GuestPort) -> [String; 2] {
    let name = format!("{PORT}{}-{}", guest.number, guest.protocol);
    [name.clone(), format!("{name}-ipv6")]
}

fn port_device(guest: GuestPort, address: &str, host: u16) -> Config {
    let protocol = guest.protocol;
    config([
        ("type", "proxy"),
        ("bind", "host"),
        ("listen", &format!("{protocol}:{address}:{host}")),
        ("connect", &format!("{protocol}:127.0.0.1:{}", guest.number)),
    ])
}

/// What of an instance's own devices is attached as we do it. `volumes` are the names that its sandbox's volumes have in
/// their pools, by name.
pub(super) fn read(devices: &Devices, host: &Host, key: Option<&VolumeKey>) -> Workspace {
    let mut found = Workspace::default();
    let text = |device: &Config, key: &str| device.get(key).cloned().unwrap_or_default();
    for (name, device) in devices {
        if name.starts_with(MOUNT) {
            let Ok(path) = GuestPath::new(text(device, "path")) else {
                continue;
            };
            if *name != mount_name(&path) {
                continue;
            }
            let source = text(device, "source");
            let readonly = device.get("readonly").is_some_and(|value| value == "true");
            let odd = odd(device, &mount_device(&path, &source, readonly));
            let mount = AttachedMount {
                source: format!("{source}{odd}"),
                readonly,
                guarded: BTreeSet::new(),
            };
            found.mounts.insert(path, mount);
        } else if let (Some(name), Some(key)) = (name.strip_prefix(VOLUME), key) {
            if device.get("type").is_none_or(|kind| kind != "disk") {
                continue;
            }
            let key = VolumeKey {
                name: name.to_owned(),
                ..key.clone()
            };
            let path = text(device, "path");
            let odd = odd(device, &volume_device(&path, &text(device, "pool"), &volume_name(&key)));
            found.volumes.insert(name.to_owned(), format!("{path}{odd}"));
        }
    }
    for (name, device) in devices.iter().filter(|(name, _)| name.starts_with(GUARD)) {
        let Ok(at) = GuestPath::new(text(device, "path")) else {
            continue;
        };
        let copy = host
            .guards
            .as_deref()
            .map(|guards| copy_of(guards, &at))
            .unwrap_or_default();
        let good = mount_device(&at, &copy.to_string_lossy(), true);
        if *name != guard_name(&at) || *device != good {
            continue;
        }
        let mut mounts = found.mounts.iter_mut().rev();
        if let Some((below, mount)) = mounts.find_map(|(path, mount)| Some((at.below(path)?.to_owned(), mount))) {
            mount.guarded.insert(below);
        }
    }
    ports(devices, host, &mut found);
    found
}

fn ports(devices: &Devices, host: &Host, found: &mut Workspace) {
    let named = devices.keys().filter_map(|name| {
        let name = name.strip_prefix(PORT)?;
        let (number, protocol) = name.strip_suffix("-ipv6").unwrap_or(name).split_once('-')?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let number = number.parse().ok()?;
        Some(GuestPort { number, protocol })
    });
    let named: BTreeSet<GuestPort> = named.collect();
    for guest in named {
        let [first, second] = port_names(guest).map(|name| devices.get(&name));
        let is_masked = |device: &Option<&Config>| {
            device.is_none_or(|device| device.get("type").is_some_and(|kind| kind == "none"))
        };
        if is_masked(&first) && is_masked(&second) {
            continue;
        }
        let listens = first
            .and_then(|device| device.get("listen"))
            .map(String::as_str)
            .unwrap_or_default();
        let number = listens.rsplit(':').next().and_then(|number| number.parse::<u16>().ok());
        let good = number.filter(|number| {
            let six = port_device(guest, "[::1]", *number);
            first == Some(&port_device(guest, "127.0.0.1", *number))
                && match second {
                    Some(device) => *device == six,
                    None => !host.ipv6,
                }
        });
        let value = match good {
            Some(number) => number.to_string(),
            None if listens.is_empty() => "not as it should be".to_owned(),
            None => format!("not as it should be: {listens}"),
        };
        found.ports.insert(guest, value);
        let ours = [first, second].into_iter().flatten();
        let listening = ours.filter_map(|device| device.get("listen")?.rsplit(':').next()?.parse().ok());
        found
            .listening
            .extend(listening.map(|host: u16| (host, guest.protocol)));
    }
}

/// The path of something that lies in another mount and that a change takes away or changes. In a running instance the
/// daemon removes what such a thing lies over, which is the host's.
pub(super) fn uncovers<'a>(before: &'a Devices, after: &Devices) -> Option<&'a str> {
    let path = |device: &'a Config| device.get("path").map(String::as_str);
    let parsed = |device: &'a Config| path(device).and_then(|path| GuestPath::new(path).ok());
    let gone = before.iter().filter(|(name, device)| after.get(*name) != Some(*device));
    let mut inner = gone.filter(|(_, device)| {
        let at = parsed(device);
        let mut others = before.values().filter_map(parsed);
        at.is_some_and(|at| others.any(|other| at.below(&other).is_some()))
    });
    inner.next().and_then(|(_, device)| path(device))
}

/// Words about what a device has that it should not, or lacks.
fn odd(device: &Config, good: &Config) -> String {
    let keys: BTreeSet<&String> = device.keys().chain(good.keys()).collect();
    let odd = keys.into_iter().filter(|key| device.get(*key) != good.get(*key));
    let odd: Vec<String> = odd
        .map(|key| format!("{key}={}", device.get(key).map_or("", String::as_str)))
        .collect();
    match odd.is_empty() {
        true => String::new(),
        false => format!(" with {}", odd.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> GuestPath {
        GuestPath::new(text).expect("a path")
    }

    fn host() -> Host {
        Host {
            guards: Some(PathBuf::from("/guards")),
            ipv6: true,
        }
    }

    fn key() -> VolumeKey {
        VolumeKey {
            environment: crate::model::EnvironmentName::new("demo").expect("a name"),
            sandbox: crate::model::SandboxName::new("one").expect("a name"),
            name: "data".to_owned(),
        }
    }

    fn all() -> (Devices, Workspace) {
        let mount = AttachedMount {
            source: "/repo".to_owned(),
            readonly: false,
            guarded: BTreeSet::from(["a/b.kdl".to_owned(), "sbx.kdl".to_owned()]),
        };
        let volume = AttachedVolume {
            path: path("/data"),
            owner: crate::model::Owner::ROOT,
            size: None,
        };
        let guest: GuestPort = "53/udp".parse().expect("a port");
        let mut devices = Devices::new();
        add_mount(&mut devices, &path("/work"), &mount, &host());
        add_volume(&mut devices, &key(), &volume, "pool");
        add_port(&mut devices, guest, 5353, true);
        let wanted = Workspace {
            mounts: [(path("/work"), mount)].into(),
            volumes: [("data".to_owned(), "/data".to_owned())].into(),
            volume_sizes: Default::default(),
            ports: [(guest, "5353".to_owned())].into(),
            listening: [(5353, Protocol::Udp)].into(),
        };
        (devices, wanted)
    }

    #[test]
    fn what_is_attached_is_read_back() {
        let (devices, wanted) = all();
        assert_eq!(read(&devices, &host(), Some(&key())), wanted);
    }

    #[test]
    fn every_edit_by_hand_shows() {
        let (devices, wanted) = all();
        for name in devices.keys() {
            let mut edited = devices.clone();
            edited.remove(name);
            assert_ne!(read(&edited, &host(), Some(&key())), wanted, "without {name}");
            // A volume stays in the pool that it was made in, whatever pool the sandbox has now: any is right.
            for (setting, value) in devices[name].iter().filter(|(setting, _)| *setting != "pool") {
                let mut edited = devices.clone();
                let device = edited.get_mut(name).expect("is there");
                device.insert(setting.clone(), format!("{value}1"));
                assert_ne!(read(&edited, &host(), Some(&key())), wanted, "{name} {setting}");
            }
            let mut edited = devices.clone();
            let device = edited.get_mut(name).expect("is there");
            device.insert("raw.mount.options".to_owned(), "exec".to_owned());
            assert_ne!(read(&edited, &host(), Some(&key())), wanted, "{name} and more");
        }
    }

    #[test]
    fn nothing_of_somebody_elses_goes() {
        let (mut devices, _) = all();
        let theirs = mount_device(&path("/work/theirs"), "/x", false);
        devices.insert("theirs".to_owned(), theirs.clone());
        devices.insert("sbx-mount-theirs".to_owned(), theirs);
        remove_mount(&mut devices, &path("/work"));
        remove_volume(&mut devices, "data");
        remove_port(&mut devices, "53/udp".parse().expect("a port"));
        let names: Vec<&String> = devices.keys().collect();
        assert_eq!(names, ["sbx-mount-theirs", "theirs"]);
        assert_eq!(read(&devices, &host(), Some(&key())), Workspace::default());
    }
}
