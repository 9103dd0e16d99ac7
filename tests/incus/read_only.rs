//! What only reads sends nothing but reads: seen by a proxy in front of the daemon.

use std::collections::BTreeSet;

use crate::support::daemon;
use crate::support::program::{Run, real_program};
use crate::support::proxy::{Asked, Proxy};

const SPEC: &str = "\
environment \"ENVIRONMENT\"
backend \"incus\"
sandbox \"base\" {
    image \"busybox\"
    user \"dev\" uid=1500
    file \"/etc/motd\" content=\"hello\"
    tree \"/srv/app\" source=\"app\" delete=true
    run \"go\" command=\"true\"
    state \"stopped\"
    snapshot \"ready\"
}
sandbox \"task\" count=2 { clone-from \"base\" snapshot=\"ready\"; file \"/etc/task\" content=\"CONTENT\"; }
";

async fn run(arguments: &[&str], proxy: &Proxy, code: u8) -> Run {
    let socket = proxy.socket();
    let words = [arguments, &["--socket", socket.to_str().expect("a path")]].concat();
    let run = real_program(&words, &[]).await;
    assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_reads_sends_nothing_but_reads() {
    let Some(daemon) = daemon::find() else { return };
    let proxy = Proxy::start(&daemon.socket);
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("app")).expect("makes");
    std::fs::write(folder.path().join("app/start"), "start").expect("writes");
    let path = folder.path().join("sbx.kdl");
    let write = |content: &str| {
        let environment = format!("reads-{}", std::process::id());
        let text = SPEC.replace("ENVIRONMENT", &environment).replace("CONTENT", content);
        std::fs::write(&path, text).expect("writes");
    };
    write("one");
    let spec = path.to_str().expect("a path");
    let kept = folder.path().join("plan.json").display().to_string();
    let environment = format!("reads-{}", std::process::id());
    let base = format!("{environment}-base");
    let reading: [&[&str]; 12] = [
        &["plan", spec],
        &["plan", spec, "--detailed-exitcode", "--json"],
        &["plan", spec, "--out", &kept],
        &["check", spec],
        &["check", spec, "--json"],
        &["check", spec, "--markdown", "--prune"],
        &["show", spec],
        &["show", spec, "--json"],
        &["graph", spec],
        &["validate", spec],
        &["export", "--environment", &environment, "--backend", "incus"],
        &["export", &base, "--backend", "incus", "--format", "yaml"],
    ];
    let mut packets = BTreeSet::new();
    let mut requests = 0;
    // Of nothing, of what is in sync, and of what is not.
    for (round, content) in ["one", "one", "two"].into_iter().enumerate() {
        write(content);
        for command in reading {
            let differs = round != 1 && (command[0] == "check" || command.contains(&"--detailed-exitcode"));
            let code = match command[0] {
                // There is nothing yet.
                "export" if round == 0 => 1,
                _ if differs => 2,
                _ => 0,
            };
            run(command, &proxy, code).await;
            let asked = proxy.take();
            let writes: Vec<&Asked> = asked.iter().filter(|asked| !asked.is_read()).collect();
            assert!(writes.is_empty(), "{command:?}: {writes:?}");
            assert_eq!(asked.is_empty(), command[0] == "validate", "{command:?}: {asked:?}");
            for one in asked {
                match one {
                    Asked::Packet { kind, .. } => drop(packets.insert(kind)),
                    _ => requests += 1,
                }
            }
        }
        // The proxy can tell: an apply that has something to do writes, by requests and in file sessions.
        run(&["apply", spec], &proxy, 0).await;
        let asked = proxy.take();
        if round == 1 {
            continue;
        }
        for packet in [false, true] {
            let mut writes = asked.iter().filter(|asked| !asked.is_read());
            let written = writes.any(|asked| matches!(asked, Asked::Packet { .. }) == packet);
            assert!(written, "{round}, packets {packet}: {asked:?}");
        }
    }
    assert!(
        packets.is_superset(&BTreeSet::from([1, 3, 4, 5, 7, 11, 12])),
        "files were looked at: {packets:?}"
    );
    assert!(requests > 30, "{requests}");
    run(&["destroy", spec, "--allow-data-loss"], &proxy, 0).await;
    assert!(proxy.take().contains(&Asked::Request {
        method: "DELETE".to_owned(),
        path: format!("/1.0/instances/reads-{}-base", std::process::id()),
    }));
}
