//! After this machine was started again, sandboxes are stopped, whoever has the numbers of their processes by then.

use std::fs;

use sbx_apply::model::Status;
use serde_json::Value;

use crate::support::namespaces::{Sandbox, folder};

#[tokio::test]
async fn after_a_reboot_a_sandbox_is_stopped_and_starts_again() {
    let sandbox = Sandbox::start().await;
    sandbox.shell("echo kept > /root/kept").await;
    let run = folder()
        .join("state/sandboxes")
        .join(sandbox.name.as_str())
        .join("run.json");
    let before = fs::read(&run).expect("reads");
    let status = async || sandbox.backend.get(&sandbox.name).await.expect("is there").status;
    assert_eq!(status().await, Status::Running);
    // The machine goes down: nobody stops anything.
    let mut known: Value = serde_json::from_slice(&before).expect("JSON");
    let number = known["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let pid = number.and_then(rustix::process::Pid::from_raw).expect("a number");
    let process = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("opens");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("runs");
    let mut waited = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut waited, None).expect("ends");
    // And comes up: by now the number is that of a process of somebody else, which started at the same tick.
    let own = fs::read_to_string("/proc/self/stat").expect("reads");
    let ticks: u64 = own
        .rsplit_once(") ")
        .expect("a name")
        .1
        .split(' ')
        .nth(19)
        .expect("a field")
        .parse()
        .expect("ticks");
    (known["pid"], known["started"]) = (std::process::id().into(), ticks.into());
    fs::write(&run, known.to_string()).expect("writes");
    assert_eq!(
        status().await,
        Status::Running,
        "nothing but the machine's start tells them apart"
    );
    known["boot"] = "another".into();
    fs::write(&run, known.to_string()).expect("writes");
    assert_eq!(status().await, Status::Stopped);
    sandbox.backend.start(&sandbox.name).await.expect("starts");
    assert_eq!(status().await, Status::Running);
    assert_eq!(sandbox.says("cat /root/kept").await, "kept\n");
    sandbox.end().await;
}
