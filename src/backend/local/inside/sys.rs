//! System calls that no library offers.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

/// `MOUNT_ATTR_IDMAP` and `MOUNT_ATTR_RDONLY` (mount_setattr(2)).
const IDMAP: u64 = 0x0010_0000;
const READ_ONLY: u64 = 0x0000_0001;
/// `MOUNT_ATTR_NODEV` and `MOUNT_ATTR_NOSUID`.
const NO_DEVICES: u64 = 0x0000_0004;
const NO_SETUID: u64 = 0x0000_0002;

/// Gives a detached mount the owners of a user namespace (mount_setattr(2)).
pub(super) fn shift_owners(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    set_mount(mount, IDMAP, u64::try_from(users.as_raw_fd()).unwrap_or_default())
}

/// Takes the meaning of devices, and of bits that change who a program runs as, from a detached mount.
pub(super) fn close_to_devices(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_mount(mount, NO_DEVICES | NO_SETUID, 0)
}

/// Keeps everybody from writing through a detached mount.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    set_mount(mount, READ_ONLY, 0)
}

fn set_mount(mount: BorrowedFd<'_>, set: u64, users: u64) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        users: u64,
    }
    let attributes = Attributes {
        set,
        clear: 0,
        propagation: 0,
        users,
    };
    // SAFETY: the path is a C string, and the structure has the layout and the size that the call takes; both
    // outlive it.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    done(answer)
}

/// Puts the loopback device of this network namespace up (netdevice(7)).
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)?;
    // SAFETY: all bits zero are a valid request: numbers, and a union of numbers.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // Both bits are small enough for the field, which the API makes so short.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: this request code takes a pointer to that structure, which outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    done(answer.into())
}

/// Makes a terminal this session's (tty_ioctl(4)).
pub(super) fn control(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: this request code takes a number.
    let answer = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY as _, 0) };
    done(answer.into())
}

/// Puts a descriptor at a number, kept over an exec.
pub(super) fn place(descriptor: impl AsFd, number: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open. Whatever was at the number is standard input, output or error, which no
    // value in a helper owns.
    let answer = unsafe { libc::dup2(descriptor.as_fd().as_raw_fd(), number) };
    done(answer.into())
}

/// Closes everything but standard input, output, error, and the one that is kept.
pub(super) fn close_others(kept: &[OwnedFd]) {
    let mut kept: Vec<u32> = kept
        .iter()
        .filter_map(|kept| u32::try_from(kept.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().chain([u32::MAX]) {
        if first < number {
            let last = if number == u32::MAX { number } else { number - 1 };
            // SAFETY: only called by a process that goes on with nothing but those descriptors: it never touches
            // a value that owns another one again.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = number.saturating_add(1);
    }
}

/// Signals as a fresh program has them: Rust ignores SIGPIPE, and a shell may have ignored or blocked others.
pub(super) fn default_signals() {
    for number in Signal::iterator() {
        if !matches!(number, Signal::SIGKILL | Signal::SIGSTOP) {
            // SAFETY: the default action is no handler of ours, so nothing can run at a bad moment.
            let _ = unsafe { signal(number, SigHandler::SigDfl) };
        }
    }
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Whether other processes of this user may look into this one.
pub(super) fn set_open(open: bool) {
    let _ = nix::sys::prctl::set_dumpable(open);
}

/// The path as the kernel wants it.
pub(super) fn c_string(text: &str) -> io::Result<std::ffi::CString> {
    std::ffi::CString::new(text).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a NUL in a text"))
}

fn done(answer: libc::c_long) -> io::Result<()> {
    match answer {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// An empty C string.
pub(super) const EMPTY: &CStr = c"";
