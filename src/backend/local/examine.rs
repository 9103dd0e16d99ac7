//! What this machine gives local sandboxes.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::Local;
use super::ids::Ids;
use super::state::failed;
use super::wire::{Lower, Part, Request, Tree};
use crate::backend::{Error, ErrorKind, Examination, Finding, Observe as _, Result, Settings};

/// Switches of the kernel that keep ordinary users from user namespaces, the value that does, and how to turn it.
const SWITCHES: [(&str, &str, &str); 3] = [
    (
        "/proc/sys/kernel/unprivileged_userns_clone",
        "0",
        "sysctl kernel.unprivileged_userns_clone=1",
    ),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
    (
        "/proc/sys/user/max_user_namespaces",
        "0",
        "sysctl user.max_user_namespaces=65536",
    ),
];

/// Programs that are of use where they are: of root's network or an ordinary user's, their package, and what for.
const PROGRAMS: [(&str, bool, &str, &str); 3] = [
    ("nft", true, "nftables", "sandboxes of root reach no network"),
    ("ip", true, "iproute2", "sandboxes of root reach no network"),
    (
        "pasta",
        false,
        "passt",
        "sandboxes of an ordinary user reach no network",
    ),
];

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
    findings.push(match local.probe().await {
        Ok(()) => Finding::good(
            "namespaces",
            "tried in a process of its own: users, mounts, processes, network",
        ),
        Err(error) => {
            let hint = hint(&local);
            Finding::broken(
                "namespaces",
                &if error.hint().is_none() {
                    error.with_hint(hint)
                } else {
                    error
                },
            )
        }
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
    findings.extend(programs(local.ids.is_root()));
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

/// What stands in the way of namespaces, as far as the kernel says.
fn hint(local: &Local) -> String {
    let turned = SWITCHES.iter().filter(|(file, off, _)| {
        let exempt = local.ids.is_root() && !file.contains("max_user");
        !exempt && fs::read_to_string(file).is_ok_and(|value| value.trim() == *off)
    });
    let commands: Vec<&str> = turned.map(|(_, _, command)| *command).collect();
    match commands.is_empty() {
        true => "Linux 6.7 or newer is needed, and inside a container, leave for user namespaces and mounts".to_owned(),
        false => format!("as root: {}", commands.join("; ")),
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

fn programs(root: bool) -> Vec<Finding> {
    let of_this_user = PROGRAMS.iter().filter(|(_, of_root, _, _)| *of_root == root);
    let look = |(name, _, package, without): &(&'static str, bool, &str, &str)| {
        let place = [
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
            "/usr/local/sbin",
            "/usr/local/bin",
        ]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
        match place {
            Some(path) => Finding::good(name, path.display().to_string()),
            None => Finding::lacking(
                name,
                format!("not found; without it, {without}"),
                format!("install the package {package}"),
            ),
        }
    };
    of_this_user.map(look).collect()
}

impl Local {
    /// Tries, in a process of its own, what the start of a sandbox needs: its namespaces, and a disk of two layers.
    async fn probe(&self) -> Result<()> {
        let cannot = |source| failed("cannot make a folder to try in", source);
        let folder = tempfile::tempdir().map_err(cannot)?;
        let below = |name: &str| folder.path().join(name);
        let (uid, gid) = self.ids.outside(0, 0);
        let make = |name: &str| -> std::io::Result<PathBuf> {
            let path = below(name);
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            if self.ids.is_root() && matches!(name, "up" | "work") {
                chown(&path, Some(uid), Some(gid))?;
            }
            Ok(path)
        };
        let [at, _, lower, up, work] = ["root", "low", "lower", "up", "work"].map(make);
        let tree = Tree {
            at: at.map_err(cannot)?,
            parts: vec![Part {
                at: String::new(),
                lowers: vec![Lower {
                    path: lower.map_err(cannot)?,
                    shifted: self.ids.is_root(),
                }],
                upper: Some((up.map_err(cannot)?, work.map_err(cannot)?)),
            }],
        };
        let tried = self.helpers.perform(&Request::Probe(self.ids, tree)).await;
        // The kernel closes what it makes in the work folder to everybody.
        let closed = folder.path().join("work/work");
        let _ = fs::set_permissions(closed, fs::Permissions::from_mode(0o700));
        tried
    }
}
