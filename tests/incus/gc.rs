//! `gc` on a real daemon, whose clock says when an instance was made.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use sbx_apply::backend::Scope;
use sbx_apply::model::{InstanceName, Labels};

use crate::support::daemon;
use crate::support::program::{Run, real_program_at};

const SPEC: &str = "\
environment \"ENVIRONMENT\"
backend \"incus\"
sandbox \"base\" { image \"busybox\"; state \"stopped\"; ttl \"1h\"; snapshot \"ready\"; }
sandbox \"task\" { clone-from \"base\" snapshot=\"ready\"; ttl \"2h\"; }
sandbox \"kept\" { image \"busybox\"; state \"stopped\"; }
";

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_over_and_ours_goes() {
    let Some(daemon) = daemon::find() else { return };
    let backend = daemon::open(&daemon).await.expect("opens");
    let environment = format!("gc-{}", std::process::id());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sbx.kdl");
    std::fs::write(&path, SPEC.replace("ENVIRONMENT", &environment)).expect("writes");
    let (spec, socket) = (path.display().to_string(), daemon.socket.display().to_string());
    let run = async |words: &[&str], now: u64, code: u8| -> Run {
        let words = [&words[..1], &[&spec], &words[1..], &["--socket", &socket]].concat();
        let run = real_program_at(&words, now).await;
        assert_eq!(run.code, code, "{words:?}\n{}\n{}", run.stdout, run.stderr);
        run
    };
    let names = async || -> Vec<String> {
        let all = backend.list().await.expect("lists");
        let ours = all.into_iter().map(|instance| instance.name.to_string());
        ours.filter_map(|name| Some(name.strip_prefix(&format!("{environment}-"))?.to_owned()))
            .collect()
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    run(&["apply"], now, 0).await;
    run(&["plan", "--detailed-exitcode"], now, 0).await;
    // A hand-made copy has all of its source's labels, and is nobody's.
    let copy = std::process::Command::new("incus")
        .args(["copy", &format!("{environment}-base"), &format!("{environment}-copy")])
        .env("INCUS_SOCKET", &daemon.socket)
        .status();
    assert!(copy.expect("the client is there").success());
    run(&["gc"], now + 3_500, 0).await;
    assert_eq!(names().await, ["base", "copy", "kept", "task"]);
    let gone = run(&["gc"], now + 3_700, 0).await;
    assert!(gone.stdout.contains("base: its ttl of 1h ended"), "{}", gone.stdout);
    assert_eq!(names().await, ["copy", "kept", "task"]);
    run(&["gc"], now + 8_000, 0).await;
    assert_eq!(names().await, ["copy", "kept"]);
    // Made again by the next apply, from the beginning.
    run(&["apply"], now, 0).await;
    let show = run(&["show"], now, 0).await;
    assert!(
        show.stdout.contains("in 59m") || show.stdout.contains("in 1h"),
        "{}",
        show.stdout
    );
    let base = InstanceName::observed(format!("{environment}-base"));
    let everything = Scope {
        environment: None,
        names: BTreeSet::new(),
    };
    let live = backend.observe(&everything).await.expect("observes");
    let made = live.into_iter().find(|live| live.name == base).expect("is there");
    assert_eq!(made.labels.get(Labels::TTL), Some("1h"));
    run(&["destroy", "--allow-data-loss"], now, 0).await;
    let copy = InstanceName::observed(format!("{environment}-copy"));
    backend.delete(&copy).await.expect("deletes");
}
