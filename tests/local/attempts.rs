//! What root inside a sandbox tries, and what it gets: the rows of the table in `src/docs/local.md`.

pub(super) use How::{Python, Shell};

/// How something is tried.
pub(super) enum How {
    /// By a script of the shell.
    Shell(&'static str),
    /// By a script of Python, for what no program does: after [`PRELUDE`].
    Python(&'static str),
}

/// One attempt. `PID`, `FOLDER`, `ABSTRACT` and `PORT` stand for what the test has made on this machine.
pub(super) struct Attempt {
    /// In words.
    pub(super) by: &'static str,
    pub(super) does: How,
    /// What is said: by the program, or here for [`NOTHING`].
    pub(super) gets: &'static str,
}

/// There is nothing to be seen, and nothing is said.
pub(super) const NOTHING: &str = "nothing";

/// Calls of the kernel by number, and an end that tells what came of one.
pub(super) const PRELUDE: &str = r#"
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    numbers = {
        "x86_64": dict(ptrace=101, init_module=175, process_vm_readv=310, open_by_handle_at=304, setns=308, unshare=272,
                       bpf=321, keyctl=250, io_uring_setup=425, kexec_load=246, perf_event_open=298, mount=165,
                       open_tree=428, pidfd_getfd=438, pidfd_open=434),
        "aarch64": dict(ptrace=117, init_module=105, process_vm_readv=270, open_by_handle_at=265, setns=268, unshare=97,
                        bpf=280, keyctl=219, io_uring_setup=425, kexec_load=104, perf_event_open=241, mount=40,
                        open_tree=428, pidfd_getfd=438, pidfd_open=434),
    }[os.uname().machine]
    answer = libc.syscall(numbers[name], *arguments)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
"#;

const fn by(by: &'static str, does: How, gets: &'static str) -> Attempt {
    Attempt { by, does, gets }
}

const ABSENT: &str = "No such file";
const DENIED: &str = "Permission denied";
const FORBIDDEN: &str = "Operation not permitted";
const READ_ONLY: &str = "Read-only file system";

/// By what they are about.
pub(super) const ATTEMPTS: &[(&str, &[Attempt])] = &[
    (
        "read the host's secrets",
        &[
            by("`/etc/shadow`", Shell("cat /etc/shadow"), ABSENT),
            by("keys of ssh", Shell("cat /etc/ssh/ssh_host_*_key"), ABSENT),
            by(
                "homes",
                Shell("ls -A /home /root /srv /mnt | grep -v ':$' | grep ."),
                NOTHING,
            ),
            by("another folder", Shell("cat FOLDER/secret"), ABSENT),
            by(
                "the kernel's memory",
                Shell("head -c 1 /proc/kcore 2>/dev/null | grep ."),
                NOTHING,
            ),
            by("the kernel's messages", Shell("dmesg"), FORBIDDEN),
            by(
                "disks and memory among devices",
                Shell("find /dev -type b -o -name mem -o -name kmsg -o -name port | grep ."),
                NOTHING,
            ),
            by("a device of its own", Shell("mknod /tmp/disk b 254 0"), FORBIDDEN),
            by(
                "a handle of a file",
                Python("call('open_by_handle_at', os.open('/', 0), b'\\x08\\0\\0\\0\\x01\\0\\0\\0' + b'\\0' * 8, 0)"),
                FORBIDDEN,
            ),
        ],
    ),
    (
        "see host processes",
        &[
            by("their numbers", Shell("ls -d /proc/PID"), ABSENT),
            by(
                "what they are called",
                Shell("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -x '42[4]'"),
                NOTHING,
            ),
        ],
    ),
    (
        "signal them",
        &[
            by("the number", Shell("/bin/kill -0 PID"), "No such process"),
            by("a descriptor", Python("call('pidfd_open', PID, 0)"), "No such process"),
        ],
    ),
    (
        "mount",
        &[
            by("a file system", Shell("mount -t tmpfs none /mnt"), "denied"),
            by(
                "the old call",
                Python("call('mount', b'none', b'/mnt', b'tmpfs', 0, None)"),
                FORBIDDEN,
            ),
            by("the new call", Python("call('open_tree', -100, b'/', 1)"), FORBIDDEN),
            by(
                "removing what protects `/proc`",
                Shell("umount /proc/sys"),
                "must be superuser",
            ),
            by(
                "a user namespace",
                Shell("unshare --user --map-root-user true"),
                FORBIDDEN,
            ),
            by("a mount namespace", Shell("unshare --mount true"), FORBIDDEN),
            by("another's namespace", Shell("nsenter --target 1 --mount true"), DENIED),
        ],
    ),
    (
        "load modules",
        &[
            by("the call", Python("call('init_module', b'', 0, b'')"), FORBIDDEN),
            by(
                "a program of the kernel's own (bpf)",
                Python("call('bpf', 5, b'\\0' * 120, 120)"),
                FORBIDDEN,
            ),
            by("another kernel", Python("call('kexec_load', 0, 0, None, 0)"), FORBIDDEN),
        ],
    ),
    (
        "reach the kernel otherwise",
        &[
            by("io_uring", Python("call('io_uring_setup', 1, b'\\0' * 120)"), FORBIDDEN),
            by("keys", Python("call('keyctl', 0, -3, 0)"), FORBIDDEN),
            by(
                "counters",
                Python("call('perf_event_open', b'\\0' * 120, 0, -1, -1, 0)"),
                FORBIDDEN,
            ),
            by("the clock", Shell("date -s 2001-01-01"), FORBIDDEN),
            by("the host name", Shell("hostname other"), "you must be root"),
            by("a control group", Shell("mkdir /sys/fs/cgroup/own"), ABSENT),
        ],
    ),
    (
        "write `/proc/sys`",
        &[
            by(
                "what the kernel runs on a crash",
                Shell("( echo x > /proc/sys/kernel/core_pattern ) 2>&1"),
                READ_ONLY,
            ),
            by(
                "forwarding",
                Shell("( echo 1 > /proc/sys/net/ipv4/ip_forward ) 2>&1"),
                READ_ONLY,
            ),
            by(
                "`/proc/sysrq-trigger`",
                Shell("(echo s > /proc/sysrq-trigger; cat /proc/sysrq-trigger) 2>/dev/null | grep ."),
                NOTHING,
            ),
            by("`/sys`", Shell("( echo 0 > /sys/class/net/lo/mtu ) 2>&1"), READ_ONLY),
        ],
    ),
    (
        "reach host sockets",
        &[
            by("a path", Shell("ls FOLDER/socket"), ABSENT),
            by(
                "looking for them",
                Shell("find /run /tmp /var/run/ /usr /etc /opt -type s | grep ."),
                NOTHING,
            ),
            by(
                "what runs this machine, where it is virtual (vsock)",
                Python("socket.socket(40, socket.SOCK_STREAM)"),
                "Address family not supported",
            ),
            by(
                "an abstract name",
                Python("socket.socket(socket.AF_UNIX).connect('\\0ABSTRACT')"),
                "Connection refused",
            ),
            by(
                "127.0.0.1",
                Python("socket.create_connection(('127.0.0.1', PORT), 2)"),
                "Connection refused",
            ),
        ],
    ),
    (
        "change the network",
        &[
            by("putting a device down", Shell("ip link set lo down"), FORBIDDEN),
            by("another address", Shell("ip addr add 127.0.0.9/8 dev lo"), FORBIDDEN),
            by("another device", Shell("ip link add type veth"), FORBIDDEN),
            by("flushing rules", Shell("nft flush ruleset"), FORBIDDEN),
        ],
    ),
    (
        "escape by symlink",
        &[
            by(
                "an absolute one",
                Shell("ln -sfn FOLDER /tmp/out; cat /tmp/out/secret"),
                ABSENT,
            ),
            by(
                "a relative one",
                Shell("ln -sfn ../../../../../../../../../../FOLDER /tmp/up; cat /tmp/up/secret"),
                ABSENT,
            ),
        ],
    ),
    (
        "escape by `/proc/*/root`",
        &[
            by("pid 1's", Shell("ls /proc/1/root/"), DENIED),
            by("pid 1's folder", Shell("ls /proc/1/cwd/"), DENIED),
            by("its own", Shell("cat /proc/self/root/FOLDER/secret"), ABSENT),
            by(
                "every one",
                Shell("cat /proc/[0-9]*/root/FOLDER/secret 2>/dev/null"),
                NOTHING,
            ),
        ],
    ),
    (
        "escape by a kept descriptor",
        &[
            by(
                "a folder kept over a change of the root",
                Python(
                    "os.makedirs('/tmp/jail', exist_ok=True); kept = os.open('/', 0); os.chroot('/tmp/jail')\n\
                     os.fchdir(kept); [os.chdir('..') for _ in range(64)]; os.chroot('.')\nos.stat('FOLDER/secret')",
                ),
                ABSENT,
            ),
            by("what pid 1 has open", Shell("readlink -v /proc/1/fd/0"), DENIED),
            by(
                "taking one of pid 1's",
                Python("call('pidfd_getfd', call('pidfd_open', 1, 0), 0, 0)"),
                FORBIDDEN,
            ),
            by("pid 1's program", Shell("cat /proc/1/exe"), DENIED),
        ],
    ),
    (
        "escape by ptrace",
        &[
            by(
                "attaching to pid 1",
                Python("call('ptrace', 16, 1, None, None)"),
                FORBIDDEN,
            ),
            by("pid 1's memory", Shell("head -c 1 /proc/1/mem"), DENIED),
            by("pid 1's environment", Shell("cat /proc/1/environ"), DENIED),
            by(
                "reading another's memory",
                Python("call('process_vm_readv', 1, None, 0, None, 0, 0)"),
                FORBIDDEN,
            ),
        ],
    ),
];
