//! Secrets on the real daemon: in the file, and nowhere else that the daemon keeps or says.

use std::process::Command;

use crate::support::daemon;
use crate::support::program::{Run, real_program};

const VALUE: &str = "real-s3cret-Value";
const OTHER: &str = "real-s3cret-Other";

const SPEC: &str = "\
environment \"ENVIRONMENT\"
backend \"incus\"
sandbox \"one\" {
    image \"busybox\"
    user \"dev\" uid=1500
    file \"/home/dev/.token\" secret=\"TOKEN\"
    run \"look\" command=\"cat /home/dev/.token; ls -ln /home/dev/.token\"
    snapshot \"ready\"
}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_its_file_and_nowhere_else() {
    let Some(daemon) = daemon::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sbx.kdl");
    let environment = format!("secret-{}", std::process::id());
    std::fs::write(&path, SPEC.replace("ENVIRONMENT", &environment)).expect("writes");
    let socket = daemon.socket.display().to_string();
    let spec = path.display().to_string();
    let run = async |arguments: &[&str], value: Option<&str>, code: u8| -> Run {
        let words = [&arguments[..1], &[&spec], &arguments[1..], &["--socket", &socket]].concat();
        let variables: Vec<(&str, &str)> = value.into_iter().map(|value| ("TOKEN", value)).collect();
        let run = real_program(&words, &variables).await;
        assert_eq!(run.code, code, "{arguments:?}\n{}\n{}", run.stdout, run.stderr);
        assert!(!format!("{}{}", run.stdout, run.stderr).contains("real-s3cret"));
        run
    };
    let incus = |arguments: &[&str]| {
        let output = Command::new("incus")
            .args(arguments)
            .env("INCUS_SOCKET", &daemon.socket)
            .stdin(std::process::Stdio::null())
            .output()
            .expect("the client runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let instance = format!("{environment}-one");
    let token = || incus(&["file", "pull", &format!("{instance}/home/dev/.token"), "-"]);
    run(&["plan", "--detailed-exitcode"], None, 1).await;
    let said = run(&["apply", "-vv"], Some(VALUE), 0).await;
    let printed = format!("{}{}", said.stdout, said.stderr);
    assert!(printed.contains("***"), "the step printed it: {printed}");
    assert!(printed.contains("-rw-------") && printed.contains("1500"), "{printed}");
    assert_eq!(token(), VALUE);
    run(&["plan", "--detailed-exitcode"], Some(VALUE), 0).await;
    run(&["check"], None, 0).await;
    run(&["check"], Some(OTHER), 2).await;
    run(&["apply"], Some(OTHER), 0).await;
    assert_eq!(token(), OTHER);
    incus(&["exec", &instance, "--", "sh", "-c", "echo by hand > /home/dev/.token"]);
    run(&["check", "--json"], Some(OTHER), 3).await;
    run(&["apply"], Some(OTHER), 0).await;
    assert_eq!(token(), OTHER);
    for kept in [
        "/1.0/instances?recursion=2",
        "/1.0/profiles?recursion=1",
        "/1.0/operations?recursion=1",
    ] {
        let text = incus(&["query", kept]);
        assert!(text.len() > 2 && !text.contains("real-s3cret"), "{kept}");
    }
    run(&["destroy", "--allow-data-loss"], None, 0).await;
    assert!(
        !incus(&["profile", "list", "-f", "csv"]).contains(&environment),
        "its notes are gone"
    );
}
