//! A policy that closes everything needs no rules: to have no network is enough.

use super::still::Spec;

#[test]
fn a_closed_sandbox_is_in_sync_for_everybody() {
    let spec = Spec::new(
        "closed",
        "sandbox \"one\" { image \"host\"; egress { mode \"none\"; }; }",
    );
    spec.run(&["apply", "--yes"], 0);
    spec.run(&["plan", "--detailed-exitcode"], 0);
    let devices = spec.run(&["exec", "one", "--", "ls", "/sys/class/net"], 0);
    // For root there is a device, and rules of this machine before it.
    assert!(matches!(devices.trim(), "lo" | "eth0\nlo"), "{devices}");
}
