//! Commands.

use std::time::{Duration, Instant};

use sbx_apply::backend::{ErrorKind, ExecOpts, Output, Streams};

use super::fixture::{Fixture, fails, file, file_as, folder, shell};

pub(crate) async fn exit_codes_pass_through(f: &Fixture) {
    let name = f.running("one").await;
    for (script, code) in [
        ("true", 0),
        ("exit 7", 7),
        ("false", 1),
        ("exit 255", 255),
        ("false\ntrue", 1),
    ] {
        assert_eq!(f.shell(&name, script).await.code, code, "{script}");
    }
}

pub(crate) async fn a_signal_is_128_and_its_number(f: &Fixture) {
    if !f.real_exec {
        f.unsupported("a signal is 128 and its number: commands are simulated here, and get no signals");
        return;
    }
    let name = f.running("one").await;
    for (signal, code) in [("KILL", 137), ("TERM", 143)] {
        assert_eq!(f.shell(&name, &format!("kill -{signal} $$")).await.code, code);
    }
}

pub(crate) async fn a_program_that_is_not_there_is_127(f: &Fixture) {
    let name = f.running("one").await;
    let output = f.shell(&name, "no-such-program").await;
    assert_eq!(output.code, 127);
    assert!(!output.stderr.is_empty());
}

pub(crate) async fn output_and_errors_come_apart(f: &Fixture) {
    let name = f.running("one").await;
    let output = f.shell(&name, "echo to out\necho to err >&2\necho out again").await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "to out\nout again\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "to err\n");
}

pub(crate) async fn long_output_is_whole(f: &Fixture) {
    let name = f.running("one").await;
    let bytes: Vec<u8> = (0..400_000_u32).map(|n| (n % 247) as u8).collect();
    f.change(&name, &[file("/srv/long", &bytes)]).await;
    let output = f.shell(&name, "cat /srv/long").await;
    assert!(output.stdout == bytes, "{} bytes", output.stdout.len());
}

pub(crate) async fn endless_output_is_kept_in_part(f: &Fixture) {
    let name = f.running("one").await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 247) as u8).collect();
    f.change(&name, &[file("/srv/long", &bytes)]).await;
    let output = f.shell(&name, "cat /srv/long\nexit 3").await;
    assert_eq!(output.code, 3);
    assert!(output.stdout == bytes[..Output::KEPT], "{} bytes", output.stdout.len());
}

pub(crate) async fn stdin_reaches_the_command(f: &Fixture) {
    let name = f.running("one").await;
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 241) as u8).collect();
    let mut stdout = Vec::new();
    let streams = Streams {
        stdin: Some(Box::new(&bytes[..])),
        stdout: Some(Box::new(&mut stdout)),
        stderr: None,
        until: None,
    };
    let code = f.backend.run(&name, &shell("cat"), streams).await.expect("runs");
    assert_eq!(code, 0);
    assert!(stdout == bytes, "{} bytes", stdout.len());
}

pub(crate) async fn streams_may_lead_nowhere(f: &Fixture) {
    let name = f.running("one").await;
    let script = shell("cat\necho out\necho err >&2\nexit 3");
    let code = f.backend.run(&name, &script, Streams::default()).await.expect("runs");
    assert_eq!(code, 3);
}

pub(crate) async fn variables_of_the_call_go_over_those_of_the_sandbox(f: &Fixture) {
    let mut opts = f.opts("one");
    opts.env.insert("OF_SANDBOX".to_owned(), "sandbox".to_owned());
    opts.env.insert("BOTH".to_owned(), "sandbox".to_owned());
    f.backend.create(&opts).await.expect("creates");
    let name = f.name("one");
    f.backend.start(&name).await.expect("starts");
    f.ready(&name).await;
    let mut command = shell("echo \"$OF_SANDBOX\" \"$BOTH\" \"$ODD\"");
    command.env.insert("BOTH".to_owned(), "call".to_owned());
    command.env.insert("ODD".to_owned(), "a=b 'c' \"d\" $e ü".to_owned());
    let output = f.backend.output(&name, &command).await.expect("runs");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "sandbox call a=b 'c' \"d\" $e ü\n"
    );
}

pub(crate) async fn an_account_is_honoured(f: &Fixture) {
    let name = f.running("one").await;
    let script = "id -u\nid -g\necho \"$USER\" \"$HOME\"\npwd";
    let user = ExecOpts {
        account: f.account(),
        ..shell(script)
    };
    let said = async |opts: &ExecOpts| {
        let output = f.backend.output(&name, opts).await.expect("runs");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(said(&user).await, "1000\n1000\nuser /home/user\n/home/user\n");
    assert_eq!(said(&shell(script)).await, "0\n0\nroot /root\n/root\n");
}

pub(crate) async fn what_commands_write_is_seen(f: &Fixture) {
    let name = f.running("one").await;
    f.change(&name, &[folder("/shared", 0o755, f.user())]).await;
    let command = ExecOpts {
        account: f.account(),
        ..shell("echo one > /shared/file\necho two >> /shared/file\ntest -e /shared/file && cat /shared/file")
    };
    let output = f.backend.output(&name, &command).await.expect("runs");
    assert_eq!((output.code, &output.stdout[..]), (0, &b"one\ntwo\n"[..]));
    assert_eq!(f.text(&name, "/shared/file").await, "one\ntwo\n");
    assert_eq!(f.found(&name, "/shared/file").await.expect("is there").owner, f.user());
}

pub(crate) async fn a_script_runs_by_its_first_line(f: &Fixture) {
    let name = f.running("one").await;
    let script = "#!/bin/sh -e\necho from a script\nexit 3\n";
    f.change(&name, &[file_as("/usr/local/bin/script", script, 0o755, f.user())])
        .await;
    let command = ExecOpts {
        command: vec!["/usr/local/bin/script".to_owned()],
        ..shell("")
    };
    let output = f.backend.output(&name, &command).await.expect("runs");
    assert_eq!((output.code, &output.stdout[..]), (3, &b"from a script\n"[..]));
}

pub(crate) async fn a_command_that_takes_too_long_times_out(f: &Fixture) {
    let name = f.running("one").await;
    let started = Instant::now();
    let command = ExecOpts {
        timeout: Some(Duration::from_secs(1)),
        ..shell("sleep 30")
    };
    fails(f.backend.output(&name, &command).await, ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(f.shell(&name, "exit 4").await.code, 4, "others can still be run");
}

pub(crate) async fn a_command_that_times_out_leaves_nothing_behind(f: &Fixture) {
    if !f.real_exec {
        f.unsupported("a command that times out leaves nothing behind: there are no processes here");
        return;
    }
    let name = f.running("one").await;
    let before = f.shell(&name, "sleep 500 >/dev/null 2>&1 </dev/null & exit").await;
    assert_eq!(before.code, 0);
    let hidden = "env -i sleep 1002 & (sleep 1003 & sleep 1004) & sleep 1000 & sleep 1001";
    let command = ExecOpts {
        account: f.account(),
        env: [("LINES".to_owned(), "one\ntwo\n".to_owned())].into(),
        timeout: Some(Duration::from_secs(1)),
        ..shell(hidden)
    };
    let started = Instant::now();
    fails(f.backend.output(&name, &command).await, ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    let sleeps = f.shell(&name, "ps | grep -o '[s]leep [0-9][0-9]*'").await;
    // What another command has left is none of its business.
    assert_eq!(String::from_utf8_lossy(&sleeps.stdout), "sleep 500\n");
}

pub(crate) async fn a_command_that_is_ended_leaves_nothing_behind(f: &Fixture) {
    if !f.real_exec {
        f.unsupported("a command that is ended leaves nothing behind: there are no processes here");
        return;
    }
    let name = f.running("one").await;
    let command = ExecOpts {
        timeout: None,
        ..shell("(sleep 1008 & sleep 1009) & sleep 1010")
    };
    let streams = Streams {
        until: Some(Box::pin(tokio::time::sleep(Duration::from_secs(1)))),
        ..Streams::default()
    };
    fails(f.backend.run(&name, &command, streams).await, ErrorKind::Failed);
    let sleeps = f.shell(&name, "ps | grep -o '[s]leep [0-9][0-9]*'").await;
    assert_eq!(String::from_utf8_lossy(&sleeps.stdout), "");
}

pub(crate) async fn a_command_in_a_stopped_instance_fails(f: &Fixture) {
    let name = f.stopped("one").await;
    assert!(f.backend.output(&name, &shell("true")).await.is_err());
    let ready = f.backend.ready(&name, Duration::from_secs(1)).await;
    fails(ready, ErrorKind::Timeout);
}
