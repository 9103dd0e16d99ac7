//! What a network that was never made, or deleted, whole leaves on the daemon's host.
//!
//! A daemon whose caller is killed while it makes a network may keep it as pending for ever (6.0.4). Deleting one takes
//! it out of the daemon's records only: its device and its DNS server stay, which nobody knows of any more, and no
//! network of that name, or of that address, can be made.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::backend::netlink::Netlink;

/// How long a server may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ends the DNS server of a network that the daemon knows no more, and removes its device, in this order: while the
/// device is there, the rest is still to be done.
pub(super) fn remove(network: &str) -> io::Result<()> {
    let argument = format!("--interface={network}");
    for entry in fs::read_dir("/proc")?.filter_map(Result::ok) {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        let Ok(server) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // Only now is it certain whose number it is.
        if is_server(pid, &argument) {
            end(&server)?;
        }
    }
    Netlink::open()?.remove(network)
}

fn is_server(pid: Pid, argument: &str) -> bool {
    let command = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    let mut words = command.split(|byte| *byte == 0);
    let program = words
        .next()
        .and_then(|program| program.rsplit(|byte| *byte == b'/').next());
    program == Some(b"dnsmasq") && words.any(|word| word == argument.as_bytes())
}

fn end(server: &OwnedFd) -> io::Result<()> {
    let patience = Timespec::try_from(PATIENCE).ok();
    for signal in [Signal::TERM, Signal::KILL] {
        // It may have ended meanwhile.
        let _ = pidfd_send_signal(server, signal);
        if poll(&mut [PollFd::new(server, PollFlags::IN)], patience.as_ref())? > 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_elses_program_is_taken_for_a_server() {
        let own = Pid::from_raw(i32::try_from(std::process::id()).expect("fits")).expect("a number");
        let argument = std::env::args().next().expect("a name");
        assert!(!is_server(own, &argument));
    }
}
