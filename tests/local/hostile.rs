//! What root inside a sandbox cannot do, each tried from there; and what it cannot make the tool do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sbx_apply::backend::FileChange;
use sbx_apply::model::{Content, GuestPath, Mode, Owner};

use crate::support::namespaces::Sandbox;

/// A folder that is kept open over a change of the root leads out of the latter, and no further than the sandbox's own.
const ESCAPE: &str = "python3 -c 'import os; os.makedirs(\"/tmp/jail\", exist_ok=True); f = os.open(\"/\", 0); \
                      os.chroot(\"/tmp/jail\"); os.fchdir(f); [os.chdir(\"..\") for _ in range(64)]; os.chroot(\".\"); \
                      os.stat(\"/etc/shadow\")'";

#[tokio::test]
async fn what_root_inside_tries_is_denied() {
    let sandbox = Sandbox::start().await;
    assert_eq!(sandbox.says("id -u").await, "0\n", "it is root that tries");
    let host = std::process::id();
    for (what, script) in [
        ("read the host's passwords", "cat /etc/shadow".to_owned()),
        (
            "see homes",
            "ls -A /home /root /srv /mnt | grep -v ':$' | grep .".to_owned(),
        ),
        (
            "find sockets of the host",
            "find /run /tmp /var/run/ -type s | grep .".to_owned(),
        ),
        ("signal a process of the host", format!("kill -0 {host}")),
        ("mount", "mount -t tmpfs none /mnt".to_owned()),
        ("unmount what protects /proc", "umount /proc/sys".to_owned()),
        ("make a device", "mknod /tmp/disk b 254 0".to_owned()),
        ("make a namespace", "unshare --user --map-root-user true".to_owned()),
        ("enter one", "nsenter --target 1 --mount true".to_owned()),
        (
            "write a setting of the kernel",
            "echo x > /proc/sys/kernel/core_pattern".to_owned(),
        ),
        ("write another", "echo 1 > /proc/sys/net/ipv4/ip_forward".to_owned()),
        ("write to /sys", "echo 0 > /sys/class/net/lo/mtu".to_owned()),
        (
            "reboot by magic",
            "echo b > /proc/sysrq-trigger && cat /proc/sysrq-trigger | grep .".to_owned(),
        ),
        ("read the kernel's memory", "head -c 1 /proc/kcore | grep .".to_owned()),
        ("read the kernel's messages", "dmesg".to_owned()),
        ("set the clock", "date -s 2001-01-01".to_owned()),
        (
            "read pid 1's environment",
            "tr '\\0' '\\n' < /proc/1/environ | grep .".to_owned(),
        ),
        ("read pid 1's memory", "head -c 1 /proc/1/mem".to_owned()),
        ("leave through pid 1's root", "ls /proc/1/root/etc/shadow".to_owned()),
        ("load a module", "modprobe loop".to_owned()),
        ("make a terminal", "mknod /tmp/terminal c 4 1".to_owned()),
        ("see pid 1's program", "cat /proc/1/exe > /dev/null".to_owned()),
        ("see what pid 1 has open", "readlink /proc/1/fd/0".to_owned()),
        (
            "find disks or memory",
            "find /dev -type b -o -name mem -o -name kmsg -o -name port | grep .".to_owned(),
        ),
        ("make a control group", "mkdir /sys/fs/cgroup/own".to_owned()),
        ("put a device down", "ip link set lo down".to_owned()),
        ("take an address", "ip addr add 127.0.0.9/8 dev lo".to_owned()),
        ("flush rules", "nft flush ruleset".to_owned()),
        ("make a device", "ip link add type veth".to_owned()),
        (
            "trace pid 1",
            "strace -p 1 -o /tmp/trace & sleep 0.2; grep . /tmp/trace".to_owned(),
        ),
        (
            "swap",
            "head -c 65536 /dev/zero > /tmp/swap; mkswap /tmp/swap; swapon /tmp/swap".to_owned(),
        ),
        ("rename the host", "hostname other && hostname | grep other".to_owned()),
        ("leave by two roots", ESCAPE.to_owned()),
    ] {
        let output = sandbox.shell(&script).await;
        assert_ne!(output.code, 0, "{what}: {}", String::from_utf8_lossy(&output.stdout));
    }
    let status = sandbox
        .says("grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' /proc/self/status | tr -d '\\t'")
        .await;
    assert_eq!(
        status,
        "CapEff:00000000000405fb\nCapBnd:00000000000405fb\nNoNewPrivs:1\nSeccomp:2\n"
    );
    sandbox.end().await;
}

#[tokio::test]
async fn nothing_of_the_tool_is_seen_inside() {
    let sandbox = Sandbox::start().await;
    let env = sandbox
        .says("env; cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
        .await;
    for line in env.lines() {
        let name = line.split('=').next().unwrap_or_default();
        assert!(
            ["HOME", "USER", "PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(&name),
            "{line}"
        );
    }
    let commands = sandbox.says("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").await;
    assert!(
        !commands.contains("cargo") && !commands.contains("hostile"),
        "{commands}"
    );
    let open = sandbox
        .says("ls -l /proc/self/fd /proc/1/fd 2>/dev/null | grep -o ' -> .*' | sort -u")
        .await;
    for line in open.lines() {
        let known = [" -> /dev/null", " -> /proc/"]
            .iter()
            .any(|known| line.starts_with(known))
            || line.contains("pipe:");
        assert!(known, "{line}");
    }
    sandbox.end().await;
}

/// Everything below `/etc` that not everybody may read.
fn private(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        let mode = metadata.permissions().mode();
        let needed = if metadata.is_dir() { 0o005 } else { 0o004 };
        if !metadata.is_symlink() && mode & needed != needed {
            found.push(entry.path());
        } else if metadata.is_dir() {
            private(&entry.path(), found);
        }
    }
}

#[tokio::test]
async fn private_files_of_the_host_are_not_there() {
    let sandbox = Sandbox::start().await;
    let mut found = Vec::new();
    private(Path::new("/etc"), &mut found);
    for path in found {
        let script = format!("cat '{}'", path.display());
        assert_ne!(sandbox.shell(&script).await.code, 0, "{}", path.display());
    }
    sandbox.end().await;
}

#[tokio::test]
async fn links_do_not_lead_the_tool_out() {
    let sandbox = Sandbox::start().await;
    let outside = tempfile::tempdir().expect("a folder");
    fs::write(outside.path().join("secret"), "of the host").expect("writes");
    let out = outside.path().display();
    let script = format!(
        "ln -s {out} /absolute; ln -s ../../../../../../../..{out} /relative; ln -s /proc/1/root{out} /magic; \
         mkdir -p /tmp/inside; ln -s /proc/self/root /self"
    );
    sandbox.shell(&script).await;
    for stopped in [false, true] {
        if stopped {
            let stop = sandbox
                .backend
                .stop(&sandbox.name, sbx_apply::backend::Stop::Force)
                .await;
            stop.expect("stops");
        }
        for link in ["/absolute", "/relative", "/magic", &format!("/self{out}")] {
            let at = |name: &str| GuestPath::new(format!("{link}/{name}")).expect("a path");
            let read = sandbox.backend.read(&sandbox.name, &at("secret"), 100).await;
            assert!(read.is_err(), "{link}: {read:?}");
            let write = FileChange::Write {
                path: at("written"),
                content: Content::inline(&b"x"[..]),
                mode: Mode::FILE,
                owner: Some(Owner::ROOT),
            };
            // Inside it may be made, if it can: a folder of that name is the sandbox's own.
            let _ = sandbox.backend.change_files(&sandbox.name, &[write]).await;
            let _ = sandbox.backend.delete_file(&sandbox.name, &at("secret")).await;
        }
    }
    let left: Vec<_> = fs::read_dir(outside.path())
        .expect("reads")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["secret"]);
    sandbox.end().await;
}

#[tokio::test]
async fn nothing_runs_on_after_a_delete() {
    let sandbox = Sandbox::start().await;
    let mark = format!("{}{}", std::process::id(), 424_242);
    sandbox
        .shell(&format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & sleep 0.1"))
        .await;
    let runs = || {
        fs::read_dir("/proc")
            .expect("reads")
            .flatten()
            .any(|entry| fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|command| command.contains(&mark)))
    };
    assert!(runs(), "it ran");
    sandbox.end().await;
    assert!(!runs());
}
