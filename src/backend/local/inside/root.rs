//! A sandbox's root folder, and the kernel's own folders in it.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, fchdir, pivot_root};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};

use super::failure::{Result, Trying as _};
use super::sys;

/// Devices that every program may expect and that hold nothing of this machine.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];
/// What tells of this machine, or could change it: hidden.
const HIDDEN_FILES: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/sysrq-trigger",
];
const HIDDEN_FOLDERS: [&str; 8] = [
    "/proc/acpi",
    "/proc/scsi",
    "/proc/asound",
    "/sys/firmware",
    "/sys/kernel",
    "/sys/fs",
    "/sys/module",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// Makes the current folder this process's root, in the pid namespace whose first process it is, and mounts the
/// kernel's folders there.
pub(super) fn enter() -> Result<()> {
    let devices = devices()?;
    // A mount that came with the namespace is locked, and cannot become the root; its copy can.
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let copy = open_tree(CWD, ".", flags).trying("cannot copy the root folder")?;
    attach(&copy, ".").trying("cannot mount the root folder")?;
    let old = open(
        "/",
        OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .trying("cannot open /")?;
    fchdir(&copy).trying("cannot enter the root folder")?;
    pivot_root(".", ".").trying("cannot change the root folder")?;
    // From here on every path is the sandbox's own, and no link in it leads out.
    kernel_folders(&devices)?;
    fchdir(&old).trying("cannot leave the root folder")?;
    umount2(".", MntFlags::MNT_DETACH).trying("cannot let go of this machine's files")?;
    chdir("/").trying("cannot enter the root folder")
}

/// Copies of this machine's devices, to be put elsewhere.
fn devices() -> Result<Vec<(&'static str, OwnedFd)>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    DEVICES
        .into_iter()
        .map(|name| {
            Ok((
                name,
                open_tree(CWD, format!("/dev/{name}"), flags).trying(format_args!("no /dev/{name} here"))?,
            ))
        })
        .collect()
}

fn attach(mount: &OwnedFd, at: &str) -> rustix::io::Result<()> {
    move_mount(
        mount.as_fd(),
        sys::EMPTY,
        CWD,
        at,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
}

fn kernel_folders(devices: &[(&str, OwnedFd)]) -> Result<()> {
    for folder in ["/proc", "/sys", "/dev"] {
        // It may stand there, and the mount says what is wrong with it otherwise.
        let _ = fs::create_dir(folder);
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, None::<&str>).trying("cannot mount /proc")?;
    if mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        quiet | MsFlags::MS_RDONLY,
        None::<&str>,
    )
    .is_err()
    {
        mount(
            Some("tmpfs"),
            "/sys",
            Some("tmpfs"),
            quiet | MsFlags::MS_RDONLY,
            Some("size=0,mode=555"),
        )
        .trying("cannot mount /sys")?;
    }
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), "/dev", Some("tmpfs"), plain, Some("size=64k,mode=755")).trying("cannot mount /dev")?;
    for (name, device) in devices {
        let at = format!("/dev/{name}");
        fs::write(&at, "").trying(format_args!("cannot make {at}"))?;
        attach(device, &at).trying(format_args!("cannot mount {at}"))?;
    }
    for (name, target) in LINKS {
        symlink(target, format!("/dev/{name}")).trying(format_args!("cannot make /dev/{name}"))?;
    }
    fs::create_dir("/dev/pts").trying("cannot make /dev/pts")?;
    mount(
        Some("devpts"),
        "/dev/pts",
        Some("devpts"),
        plain,
        Some("newinstance,ptmxmode=0666,mode=0620"),
    )
    .trying("cannot mount /dev/pts")?;
    fs::create_dir("/dev/shm").trying("cannot make /dev/shm")?;
    mount(Some("tmpfs"), "/dev/shm", Some("tmpfs"), quiet, Some("mode=1777")).trying("cannot mount /dev/shm")?;
    hide(quiet)
}

fn hide(quiet: MsFlags) -> Result<()> {
    let there = |path: &&&str| Path::new(path).exists();
    for file in HIDDEN_FILES.iter().filter(there) {
        mount(Some("/dev/null"), *file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .trying(format_args!("cannot hide {file}"))?;
    }
    for folder in HIDDEN_FOLDERS.iter().filter(there) {
        let flags = quiet | MsFlags::MS_RDONLY;
        mount(Some("tmpfs"), *folder, Some("tmpfs"), flags, Some("size=0,mode=555"))
            .trying(format_args!("cannot hide {folder}"))?;
    }
    for folder in READ_ONLY.iter().filter(there) {
        mount(
            Some(*folder),
            *folder,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        )
        .trying(format_args!("cannot bind {folder}"))?;
        let flags = quiet | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, *folder, None::<&str>, flags, None::<&str>)
            .trying(format_args!("cannot protect {folder}"))?;
    }
    Ok(())
}
