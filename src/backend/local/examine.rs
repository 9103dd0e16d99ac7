//! What this machine gives local sandboxes.

use std::path::Path;

use super::Local;
use super::ids::Ids;
use super::network::{Network, leads_out};
use crate::backend::{Error, ErrorKind, Examination, Finding, Observe as _, Settings};

/// Looks at all of it. Leaves nothing behind.
pub(super) async fn examine(settings: &Settings, program: &Path) -> Examination {
    let mut examination = Examination::default();
    let findings = &mut examination.findings;
    let kernel = rustix::system::uname();
    findings.push(Finding::good(
        "kernel",
        format!("Linux {}", kernel.release().to_string_lossy()),
    ));
    let local = match Local::open(settings, program) {
        Ok(local) => local,
        Err(error) => {
            findings.push(Finding::broken("state folder", &error));
            return examination;
        }
    };
    findings.push(state(&local));
    findings.push(match local.try_machine().await {
        Ok(()) => Finding::good("namespaces", "tried in a process of its own, mounts and overlays too"),
        Err(error) => Finding::broken("namespaces", &error),
    });
    findings.push(users(local.ids));
    findings.push(match local.groups.limit() {
        true => Finding::good("limits", "control groups can be made here"),
        false => Finding::lacking(
            "limits",
            "no control groups for this user",
            "run as root, or in a systemd user session, whose groups are delegated",
        ),
    });
    findings.push(network(&local));
    examination.answers = local.describe().await.ok();
    examination.capabilities = Some(local.capabilities.clone());
    examination
}

/// Where sandboxes are kept, and whether that can be.
fn state(local: &Local) -> Finding {
    let root = local.store.root();
    let there = root.ancestors().find(|folder| folder.exists());
    let writable = there.is_some_and(|folder| rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok());
    if !writable {
        let message = format!("{} cannot be written to", root.display());
        let error = Error::new(ErrorKind::Unauthorised, message);
        let hint = "name another folder with the setting `state`, or `SBX_LOCAL_STATE`";
        return Finding::broken("state folder", &error.with_hint(hint));
    }
    match local.store.all() {
        Ok(names) if root.exists() => Finding::good(
            "state folder",
            format!("{}, sandboxes in it: {}", root.display(), names.len()),
        ),
        Ok(_) => Finding::good(
            "state folder",
            format!("{}, made with the first sandbox", root.display()),
        ),
        Err(error) => Finding::broken("state folder", &error),
    }
}

/// Whose sandboxes are.
fn users(ids: Ids) -> Finding {
    match ids {
        Ids::Root { base } => Finding::good(
            "users",
            format!("all of a sandbox's, from the id {base} of this machine on"),
        ),
        Ids::Range { users, .. } => Finding::good(
            "users",
            format!("all of a sandbox's, from the id {users} of your own on"),
        ),
        Ids::Single { .. } => Finding::lacking(
            "users",
            "nobody but root in a sandbox",
            "install the package uidmap, and have root give you ranges: usermod --add-subuids 100000-165535 \
             --add-subgids 100000-165535 USER",
        ),
    }
}

/// What sandboxes reach.
fn network(local: &Local) -> Finding {
    match &local.network {
        Network::Nat(nft) => Finding::good("network", format!("outbound, by {}", nft.place())),
        Network::Pasta(pasta) if !leads_out() => Finding::lacking(
            "network",
            format!("{} is there, and this machine has no way out now", pasta.display()),
            "connect it, and start sandboxes again that have been started meanwhile".to_owned(),
        ),
        Network::Pasta(pasta) => Finding::good("network", format!("outbound, by {}", pasta.display())),
        Network::Loopback(why) => Finding::lacking("network", "nothing but the loopback device", why.clone()),
    }
}
