//! Limits that hold: each is run into from inside.

use std::fs;
use std::path::PathBuf;

use sbx_apply::backend::{Changes, CreateOpts};
use sbx_apply::model::{Bytes, Capability, Memory};

use crate::support::daemon::skipped;
use crate::support::namespaces::{self, Sandbox};

#[tokio::test]
async fn limits_hold() {
    let backend = namespaces::backend();
    if ![Capability::CpuLimit, Capability::MemoryLimit]
        .iter()
        .all(|limit| backend.capabilities().can(*limit))
    {
        skipped("limits of local sandboxes: there are none for this user on this machine");
        return;
    }
    let sandbox = Sandbox::start_with(CreateOpts {
        cpu: Some(1),
        memory: Some(Memory::Bytes(Bytes(64 << 20))),
        config: [("limits.processes".to_owned(), "20".to_owned())].into(),
        ..CreateOpts::default()
    })
    .await;
    // The kernel ends what takes more (signal 9), and nothing else.
    let hungry = "head -c 200000000 /dev/zero | tail -c 150000000 > /dev/null";
    let output = sandbox.shell(hungry).await;
    assert_eq!(output.code, 137, "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(sandbox.shell("true").await.code, 0, "it lives on");
    let output = sandbox.shell("for i in $(seq 40); do sleep 2 & done; wait").await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ork"), "no process was refused: {said}");
    assert_eq!(quota(&sandbox), Some(("100000".to_owned(), "100000".to_owned())));
    let changes = Changes {
        memory: Some(None),
        cpu: Some(Some(2)),
        ..Changes::default()
    };
    sandbox
        .backend
        .configure(&sandbox.name, &changes)
        .await
        .expect("changes");
    assert_eq!(sandbox.shell(hungry).await.code, 0, "the bound on memory is gone");
    assert_eq!(quota(&sandbox), Some(("200000".to_owned(), "100000".to_owned())));
    let name = sandbox.name.clone();
    sandbox.end().await;
    assert_eq!(groups(name.as_str()), Vec::<PathBuf>::new(), "no group is left");
}

/// The control groups of a sandbox.
fn groups(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(PathBuf::from("/sys/fs/cgroup"), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let own = entry.file_name().to_string_lossy().ends_with(&format!("-{name}"));
            match own {
                true => found.push(path),
                false if depth < 4 && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    folders.push((path, depth + 1));
                }
                false => {}
            }
        }
    }
    found
}

/// Microseconds of CPU time in so many microseconds of time, in either version's words.
fn quota(sandbox: &Sandbox) -> Option<(String, String)> {
    groups(sandbox.name.as_str()).into_iter().find_map(|group| {
        let read = |file: &str| {
            fs::read_to_string(group.join(file))
                .ok()
                .map(|text| text.trim().to_owned())
        };
        if let Some(text) = read("cpu.max") {
            return text
                .split_once(' ')
                .map(|(quota, period)| (quota.to_owned(), period.to_owned()));
        }
        read("cpu.cfs_quota_us").zip(read("cpu.cfs_period_us"))
    })
}
