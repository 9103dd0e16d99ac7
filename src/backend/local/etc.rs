//! The files of `/etc` that are each sandbox's own, whatever its image says: its name, its id, and whom to ask for names.
//!
//! They lie in a folder of the sandbox, right above the image and below all layers: what a spec or a program writes
//! there wins, and no snapshot or clone takes another sandbox's name along. They are made anew at each start. Under an
//! outbound network policy they hold its names, and no DNS server.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::ids::Ids;
use super::image::{self, Parts};
use super::network::name_servers;
use super::state::{Store, failed, folder_of, private};
use super::wire::Lower;
use crate::backend::Result;
use crate::model::{Digest, InstanceName, PinnedPolicy};

/// Its folder, in that of a sandbox.
const FOLDER: &str = "own";

impl Store {
    /// Makes the files of a sandbox, or brings them up to date. Its disk is not in use.
    /// Also while it is, when its policy changes: then only what stands in them.
    pub(super) fn write_etc(
        &self,
        name: &InstanceName,
        ids: Ids,
        parts: &Parts,
        policy: Option<&PinnedPolicy>,
    ) -> Result<()> {
        self.write_etc_asking(name, ids, parts, (policy, None))
    }

    /// The same, with a DNS server to ask in any case.
    pub(super) fn write_etc_asking(
        &self,
        name: &InstanceName,
        ids: Ids,
        parts: &Parts,
        (policy, server): (Option<&PinnedPolicy>, Option<Ipv4Addr>),
    ) -> Result<()> {
        write(&self.sandbox(name)?, name, ids, (parts, policy, server))
            .map_err(|source| failed(format!("cannot make the files of `{name}`"), source))
    }
}

/// Makes the files in the folder of a sandbox.
fn write(
    sandbox: &Path,
    name: &InstanceName,
    ids: Ids,
    (parts, policy, server): (&Parts, Option<&PinnedPolicy>, Option<Ipv4Addr>),
) -> io::Result<()> {
    // Where `/etc` is an overlay of its own, its folder is that; else it is a folder in the root.
    let (top, below) = match parts.0.iter().any(|part| part.at == "etc") {
        true => (folder_of("etc"), None),
        false => (folder_of(""), Some("etc")),
    };
    let image = parts.0.first().and_then(|root| root.lowers.first());
    if below.is_some() && image.is_some_and(|image| is_something_else(&image.path.join("etc"))) {
        return Ok(());
    }
    let own = sandbox.join(FOLDER);
    if !own.exists() {
        private().create(&own)?;
    }
    let mut etc = own;
    for step in std::iter::once(top.as_str()).chain(below) {
        etc.push(step);
        image::folder(&etc, 0o755, ids)?;
    }
    // Under a policy nobody is asked: its names are known.
    let servers = match server {
        Some(server) => vec![IpAddr::V4(server)],
        None => name_servers().into_iter().filter(|_| policy.is_none()).collect(),
    };
    let servers = servers.into_iter();
    let servers: String = servers.map(|server| format!("nameserver {server}\n")).collect();
    let pinned = policy.into_iter().flat_map(PinnedPolicy::names);
    let pinned = pinned.flat_map(|(name, all)| all.iter().map(move |address| format!("{address} {name}\n")));
    let hosts = format!(
        "127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost ip6-localhost ip6-loopback\n{}",
        pinned.collect::<String>()
    );
    // machine-id(5): the machine's own is not to be known, and no two may have the same.
    let id = Digest::of(sandbox.as_os_str().as_encoded_bytes());
    let id = id.as_str().get(..32).unwrap_or_default();
    for (file, text) in [
        ("machine-id", format!("{id}\n")),
        ("hostname", format!("{name}\n")),
        ("hosts", hosts),
        ("resolv.conf", servers),
    ] {
        let file = etc.join(file);
        if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
            // In its place: a running sandbox has it open below its disk.
            match file.is_file() {
                true => fs::write(&file, &text)?,
                false => image::file(&file, &text, ids)?,
            }
        }
    }
    Ok(())
}

/// Whether an image has no folder there, but a link or a file, which a folder of ours would hide.
fn is_something_else(etc: &Path) -> bool {
    fs::symlink_metadata(etc).is_ok_and(|found| !found.is_dir())
}

/// The folder to put into the overlay at `part`, where there is one.
pub(super) fn lower(sandbox: &Path, part: &str) -> Option<Lower> {
    let path: PathBuf = sandbox.join(FOLDER).join(folder_of(part));
    path.is_dir().then_some(Lower { path, shifted: false })
}
