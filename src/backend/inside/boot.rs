//! What loads the rules when a guest starts, before its network is up, and keeps it from coming up where they cannot be
//! loaded. Pure.

use super::{RULES, file_name, link, path, stands, text_at, write};
use crate::backend::{Error, ErrorKind, FileChange, Result};
use crate::model::{Inspection, Mode, Shape};

const INIT: [&str; 2] = ["/sbin/init", "/usr/sbin/init"];
const OPENRC: [&str; 2] = ["/sbin/openrc", "/usr/sbin/openrc"];
const RUNLEVEL: &str = "/etc/runlevels/sysinit";
const INITTAB: &str = "/etc/inittab";

const UNIT: &str = "/etc/systemd/system/sbx-apply-egress.service";
const WANTED: &str = "/etc/systemd/system/sysinit.target.wants/sbx-apply-egress.service";
const SERVICE: &str = "/etc/init.d/sbx-apply-egress";
const IN_RUNLEVEL: &str = "/etc/runlevels/sysinit/sbx-apply-egress";
const LOADER: &str = "/etc/sbx-apply/load-egress";
/// The line of an inittab that runs the loader, and waits for it.
const ENTRY: &str = "::sysinit:/etc/sbx-apply/load-egress\n";

/// All that is looked at.
pub(super) const PATHS: [&str; 11] = [
    INIT[0],
    INIT[1],
    OPENRC[0],
    OPENRC[1],
    RUNLEVEL,
    INITTAB,
    UNIT,
    WANTED,
    SERVICE,
    IN_RUNLEVEL,
    LOADER,
];

/// How a guest starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// By units (systemd.unit(5)).
    Systemd,
    /// By runlevels of services (openrc-run(8)).
    OpenRc,
    /// By busybox's inittab.
    Inittab,
}

impl Boot {
    /// By the guest's files.
    pub(super) fn of(found: &Inspection) -> Result<Self> {
        let shape = |text: &str| found.get(&path(text)).map(|found| &found.shape);
        let init = INIT.iter().find_map(|text| shape(text));
        let leads_to = |name: &str| matches!(init, Some(Shape::Symlink(target)) if file_name(target) == name);
        if leads_to("systemd") {
            return Ok(Self::Systemd);
        }
        if OPENRC.iter().any(|text| shape(text).is_some()) && matches!(shape(RUNLEVEL), Some(Shape::Directory)) {
            return Ok(Self::OpenRc);
        }
        if leads_to("busybox") && text_at(found, INITTAB).is_some() {
            return Ok(Self::Inittab);
        }
        Err(
            Error::unsupported("its init is none that is known to load rules before its network is up")
                .with_hint("known are systemd, OpenRC and busybox; or have the policy enforced by the host"),
        )
    }

    /// What has to change for the rules to be loaded, with the program nft at a place.
    pub(super) fn changes(self, found: &Inspection, program: &str) -> Result<Vec<FileChange>> {
        let mut wanted = match self {
            Self::Systemd => vec![write(UNIT, unit(program), Mode::FILE), link(WANTED, UNIT)],
            Self::OpenRc => vec![
                write(LOADER, loader(program), Mode::of_bits(0o755)),
                write(SERVICE, service(), Mode::of_bits(0o755)),
                link(IN_RUNLEVEL, SERVICE),
            ],
            Self::Inittab => {
                let text = text_at(found, INITTAB)
                    .ok_or_else(|| Error::new(ErrorKind::Invalid, format!("its {INITTAB} is no text")))?;
                let mode = found.get(&path(INITTAB)).map_or(Mode::FILE, |found| found.mode);
                let rest = text.replace(ENTRY, "");
                vec![
                    write(LOADER, loader(program), Mode::of_bits(0o755)),
                    write(INITTAB, format!("{ENTRY}{rest}"), mode),
                ]
            }
        };
        wanted.retain(|change| !stands(found, change));
        Ok(wanted)
    }
}

/// What takes all of it off again, however the guest starts.
pub(super) fn removals(found: &Inspection) -> Result<Vec<FileChange>> {
    let ours = [WANTED, UNIT, IN_RUNLEVEL, SERVICE];
    let there = ours.into_iter().filter(|text| found.get(&path(text)).is_some());
    let mut changes: Vec<FileChange> = there.map(|text| FileChange::Remove { path: path(text) }).collect();
    if let Some(text) = text_at(found, INITTAB).filter(|text| text.contains(ENTRY)) {
        let mode = found.get(&path(INITTAB)).map_or(Mode::FILE, |found| found.mode);
        changes.push(write(INITTAB, text.replace(ENTRY, ""), mode));
    }
    if found.get(&path(LOADER)).is_some() {
        changes.push(FileChange::Remove { path: path(LOADER) });
    }
    Ok(changes)
}

/// Before anything that sets up a network (systemd.special(7), `network-pre.target`), and after what Debian's package
/// loads, which may begin with flushing all there is. A guest whose rules cannot be loaded is switched off.
fn unit(program: &str) -> String {
    format!(
        "[Unit]
Description=Egress policy, kept by sbx-apply
DefaultDependencies=no
RequiresMountsFor=/etc /usr
After=local-fs.target nftables.service
Before=network-pre.target sysinit.target shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
FailureAction=poweroff-immediate

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} -f {RULES}
"
    )
}

/// The same where there are no units. It does not come back where it cannot load them: whoever waits for it waits for
/// good, and no network comes up.
fn loader(program: &str) -> String {
    format!(
        "#!/bin/sh
# Egress policy, kept by sbx-apply: loaded before the network is up, or this sandbox does not come up.
{program} -f {RULES} && exit 0
poweroff -f
while :; do sleep 60; done
"
    )
}

fn service() -> String {
    format!(
        "#!/sbin/openrc-run
description=\"Egress policy, kept by sbx-apply\"
depend() {{
    before net
    after nftables
}}
start() {{
    {LOADER}
}}
"
    )
}
