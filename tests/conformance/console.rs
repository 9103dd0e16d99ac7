//! Interactive sessions.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sbx_apply::backend::{Account, ConsoleOpts, ErrorKind, Moment, Result, Terminal};
use sbx_apply::model::InstanceName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::sync::{oneshot, watch};

use super::fixture::{Fixture, fails};

/// What a check does at the caller's end of a session.
struct Caller {
    typed: DuplexStream,
    shown: DuplexStream,
    size: watch::Sender<(u16, u16)>,
    end: Option<oneshot::Sender<()>>,
    said: String,
}

impl Caller {
    async fn types(&mut self, text: &str) {
        self.typed.write_all(text.as_bytes()).await.expect("is read");
    }

    /// Waits until something has been shown.
    async fn sees(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !self.said.contains(text) {
            let count = tokio::time::timeout(Duration::from_secs(30), self.shown.read(&mut buffer)).await;
            let count = count
                .unwrap_or_else(|_| panic!("no {text:?} in {:?}", self.said))
                .expect("is there");
            assert!(count > 0, "ended without {text:?}: {:?}", self.said);
            self.said.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    }
}

fn script(text: &str) -> ConsoleOpts {
    ConsoleOpts {
        command: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
        account: Account::root(),
        env: BTreeMap::from([("TERM".to_owned(), "vt100".to_owned())]),
    }
}

/// Whether there are terminals at all.
fn can(f: &Fixture) -> bool {
    if !f.real_exec {
        f.unsupported("sessions: there are no terminals here");
    }
    f.real_exec
}

/// A session of 100 columns and 30 rows, and what it showed.
async fn session(
    f: &Fixture,
    name: &InstanceName,
    opts: &ConsoleOpts,
    acts: impl AsyncFnOnce(&mut Caller),
) -> (Result<i32>, String) {
    let (typed, input) = duplex(4096);
    let (output, shown) = duplex(1 << 20);
    let (size, sizes) = watch::channel((100, 30));
    let (end, ended) = oneshot::channel();
    let until: Moment<'static> = Box::pin(async move {
        if ended.await.is_err() {
            std::future::pending::<()>().await;
        }
    });
    let terminal = Terminal {
        input: Box::new(input),
        output: Box::new(output),
        size: sizes,
        until: Some(until),
    };
    let mut caller = Caller {
        typed,
        shown,
        size,
        end: Some(end),
        said: String::new(),
    };
    let (code, ()) = tokio::join!(f.backend.console(name, opts, terminal), acts(&mut caller));
    let mut rest = Vec::new();
    caller.shown.read_to_end(&mut rest).await.expect("is read");
    caller.said.push_str(&String::from_utf8_lossy(&rest));
    (code, caller.said)
}

pub(crate) async fn a_session_has_a_terminal(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    let opts = script("test -t 0 && test -t 1 && test -t 2 && stty size && echo $TERM $HOME && id -u && exit 7");
    let (code, said) = session(f, &name, &opts, async |_| {}).await;
    assert_eq!(
        (code.expect("runs"), said.as_str()),
        (7, "30 100\r\nvt100 /root\r\n0\r\n")
    );
}

pub(crate) async fn a_session_follows_the_size(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    let opts = script("trap 'stty size' WINCH; echo waits; while :; do read line && break; done; stty size");
    let acts = async |caller: &mut Caller| {
        caller.sees("waits").await;
        caller.size.send_replace((90, 20));
        caller.sees("20 90").await;
        caller.types("\n").await;
    };
    let (code, said) = session(f, &name, &opts, acts).await;
    assert_eq!(code.expect("runs"), 0);
    assert_eq!(said.matches("20 90").count(), 2, "{said:?}");
}

pub(crate) async fn keys_reach_a_session(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    // A login shell where no command is named.
    let opts = ConsoleOpts {
        command: Vec::new(),
        ..script("")
    };
    let acts = async |caller: &mut Caller| {
        // One program for both: a key between two of the shell's own commands would reach the shell.
        caller.types("sh -c 'echo $((40 + 2)); exec sleep 600'\n").await;
        caller.sees("42").await;
        caller.types("\u{3}").await;
        // What is typed before that is dropped with what was interrupted (termios(3), NOFLSH).
        caller.sees("^C").await;
        caller.types("exit 9\n").await;
    };
    let (code, said) = session(f, &name, &opts, acts).await;
    assert_eq!(code.expect("runs"), 9, "{said}");
}

pub(crate) async fn a_session_has_its_account(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    let opts = ConsoleOpts {
        account: f.account(),
        ..script("id -u; pwd; echo $USER")
    };
    let (code, said) = session(f, &name, &opts, async |_| {}).await;
    assert_eq!(
        (code.expect("runs"), said.as_str()),
        (0, "1000\r\n/home/user\r\nuser\r\n")
    );
}

pub(crate) async fn a_session_tells_signals(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    let (code, _) = session(f, &name, &script("kill -TERM $$"), async |_| {}).await;
    assert_eq!(code.expect("runs"), 143);
}

pub(crate) async fn what_a_short_session_says_is_whole(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    for round in 0..20 {
        let (code, said) = session(f, &name, &script("echo here"), async |_| {}).await;
        assert_eq!((code.expect("runs"), said.as_str()), (0, "here\r\n"), "{round}");
    }
}

pub(crate) async fn a_session_that_is_ended_leaves_nothing_behind(f: &Fixture) {
    if !can(f) {
        return;
    }
    let name = f.running("one").await;
    let opts = script("sleep 1005 & (trap '' HUP; sleep 1006) & echo waits; sleep 1007");
    let started = Instant::now();
    let acts = async |caller: &mut Caller| {
        caller.sees("waits").await;
        caller.end.take().expect("once").send(()).expect("is waited for");
    };
    let (code, _) = session(f, &name, &opts, acts).await;
    fails(code, ErrorKind::Failed);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    let sleeps = f.shell(&name, "ps | grep -o '[s]leep [0-9][0-9]*'").await;
    assert_eq!(String::from_utf8_lossy(&sleeps.stdout), "");
}

pub(crate) async fn no_session_without_a_running_instance(f: &Fixture) {
    let name = f.stopped("one").await;
    let (code, _) = session(f, &name, &script("true"), async |_| {}).await;
    assert!(code.is_err());
}
