//! Package managers work in a sandbox of this machine's own system.

use std::process::Command;

use crate::support::daemon::skipped;
use crate::support::namespaces::Sandbox;

const BUILD: &str = "set -e; mkdir -p /tmp/p/DEBIAN /tmp/p/usr/bin /tmp/p/etc/tiny; \
    printf 'Package: sbx-tiny\nVersion: 1\nArchitecture: all\nMaintainer: none\nDescription: tiny\n' > /tmp/p/DEBIAN/control; \
    printf '#!/bin/sh\necho works\n' > /tmp/p/usr/bin/sbx-tiny; chmod 755 /tmp/p/usr/bin/sbx-tiny; \
    echo set > /tmp/p/etc/tiny/conf; dpkg-deb --root-owner-group --build /tmp/p /tmp/p.deb";

#[tokio::test]
async fn packages_come_and_go() {
    let there = Command::new("dpkg-deb").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        skipped("packages in local sandboxes: this machine has no dpkg");
        return;
    }
    let sandbox = Sandbox::start().await;
    let output = sandbox
        .shell(&format!("({BUILD}) >&2; dpkg -i /tmp/p.deb >&2 && sbx-tiny"))
        .await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.code, &output.stdout[..]), (0, &b"works\n"[..]), "{said}");
    assert!(Command::new("sbx-tiny").output().is_err(), "not on this machine");
    let output = sandbox
        .shell("dpkg -r sbx-tiny >&2; ! command -v sbx-tiny; dpkg --audit")
        .await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.code, &output.stdout[..]), (0, &b""[..]), "{said}");
    sandbox.end().await;
}
