//! What processes of a sandbox may not do.

use std::collections::BTreeMap;

use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::failure::{Failure, Result, Trying as _};
use crate::backend::local::wire::Kind;

/// What root inside keeps: owners, modes and ids of its own files and processes, low ports, chroot.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT);

/// One more for pid 1, which does nothing with it: whoever has less cannot look into it (ptrace(2)).
const OF_INIT: CapabilitySet = CapabilitySet::SYS_PACCT;

/// Drops, for this process and all that come of it, the capabilities that sandboxes do not have, and keeps
/// setuid programs from giving any back. For root, before ids change.
pub(super) fn drop_capabilities(init: bool) -> Result<()> {
    set_no_new_privs(true).trying("cannot give up new privileges")?;
    let kept = if init { KEPT | OF_INIT } else { KEPT };
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.contains(one) {
            // Those above the kernel's last are refused, and are nobody's.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
    Ok(())
}

/// The same for what this process itself holds. After ids have changed.
pub(super) fn shed(init: bool, root: bool) -> Result<()> {
    let kept = match (init, root) {
        (true, _) => KEPT | OF_INIT,
        (false, true) => KEPT,
        (false, false) => CapabilitySet::empty(),
    };
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).trying("cannot give up capabilities")
}

/// System calls that reach for the kernel and that no program in a sandbox needs.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_fanotify_init,
];

/// What sockets may be of: what a sandbox has for itself. Others reach past its network, such as those of a virtual machine to
/// whoever runs it (vsock(7)), or bring modules into the kernel.
const FAMILIES: [libc::c_int; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Puts the filters in force, for ever. Where there is one id only, changes of owners and groups are answered as
/// if they had worked: package managers insist on them.
pub(super) fn filter(single: bool) -> Result<()> {
    for program in programs(single)? {
        seccompiler::apply_filter(&program)
            .map_err(|error| Failure::new(Kind::Failed, format!("cannot put a filter in force: {error}")))?;
    }
    Ok(())
}

fn programs(single: bool) -> Result<Vec<BpfProgram>> {
    let bad = |error: seccompiler::BackendError| Failure::new(Kind::Failed, format!("no filter: {error}"));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    // New user namespaces would give back every capability, inside them.
    let new_users = u64::try_from(libc::CLONE_NEWUSER).unwrap_or_default();
    for call in [libc::SYS_unshare, libc::SYS_clone] {
        let flags = SeccompCmpOp::MaskedEq(new_users);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, flags, new_users).map_err(bad)?;
        rules.insert(call, vec![SeccompRule::new(vec![condition]).map_err(bad)?]);
    }
    // Typing into somebody else's terminal.
    let pushes = [libc::TIOCSTI, libc::TIOCLINUX].map(|request| {
        let request = u64::from(u32::try_from(request).unwrap_or_default());
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request).map_err(bad)?;
        SeccompRule::new(vec![condition]).map_err(bad)
    });
    rules.insert(libc::SYS_ioctl, pushes.into_iter().collect::<Result<_>>()?);
    let other = FAMILIES.map(|family| {
        let family = u64::try_from(family).unwrap_or_default();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family).map_err(bad)
    });
    let other = SeccompRule::new(other.into_iter().collect::<Result<_>>()?).map_err(bad)?;
    let sockets = [libc::SYS_socket, libc::SYS_socketpair].map(|call| (call, vec![other.clone()]));
    let errno = |number: i32| SeccompAction::Errno(u32::try_from(number).unwrap_or_default());
    let mut filters = vec![
        (rules, errno(libc::EPERM)),
        // Its flags cannot be seen; libraries then use the older call.
        (BTreeMap::from([(libc::SYS_clone3, Vec::new())]), errno(libc::ENOSYS)),
        (BTreeMap::from(sockets), errno(libc::EAFNOSUPPORT)),
    ];
    if single {
        let calls = [
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lchown,
            libc::SYS_fchown,
            libc::SYS_fchownat,
            libc::SYS_setgroups,
        ];
        filters.push((calls.into_iter().map(|call| (call, Vec::new())).collect(), errno(0)));
    }
    let filters = filters.into_iter().map(|(rules, action)| {
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, ARCHITECTURE).map_err(bad)?;
        BpfProgram::try_from(filter).map_err(bad)
    });
    let filters = filters.collect::<Result<Vec<_>>>()?;
    #[cfg(target_arch = "x86_64")]
    let filters = [filters, vec![only_one_table()]].concat();
    Ok(filters)
}

/// Refuses the second table of system calls that x86-64 may have, x32: its calls have the same architecture and other
/// numbers, so that none of the rules above would meet them.
#[cfg(target_arch = "x86_64")]
fn only_one_table() -> BpfProgram {
    use seccompiler::sock_filter;
    // The instructions of linux/bpf_common.h: loading a word, comparing, giving an answer. The number comes first in what a
    // filter is given (seccomp(2)).
    const LOAD: u16 = 0x20;
    const IS_AT_LEAST: u16 = 0x35;
    const ANSWER: u16 = 0x06;
    const X32: u32 = 0x4000_0000;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let step = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        step(LOAD, 0, 0, 0),
        step(IS_AT_LEAST, 0, 1, X32),
        step(ANSWER, 0, 0, ERRNO | libc::ENOSYS.cast_unsigned()),
        step(ANSWER, 0, 0, ALLOW),
    ]
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: TargetArch = TargetArch::riscv64;
