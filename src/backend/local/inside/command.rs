//! A command in a running sandbox.
//!
//! Three processes: this one, outside, which watches; a keeper inside, to which everything falls that the
//! command leaves behind; and the command. So whatever the command has started descends from the keeper, and can
//! be ended with it, whoever its parent was.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, chdir, execve, setgroups, setresgid, setresuid, setsid};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::stdio::{stderr, stdout};

use super::channel::Channel;
use super::failure::{Failure, Result, Trying as _};
use super::killing::Host;
use super::{confine, fork, start, sys, users};
use crate::backend::local::wire::{Exec, Kind, Reply};

/// What shells answer for a program that is not there, and for one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_RUN: i32 = 126;
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a command to its end. When the tool goes away first, or asks for it by closing the socket, everything
/// that the command has started is ended.
pub(super) fn run(exec: &Exec, channel: &mut Channel) -> Result<i32> {
    let stdin = match exec.stdin {
        true => channel.descriptor().trying("no input came")?,
        false => OwnedFd::from(File::open("/dev/null").trying("no /dev/null")?),
    };
    let _in_use = start::hold(&exec.in_use)?;
    start::join(&exec.groups)?;
    let host = Host::open()?;
    enter(exec)?;
    let terminal = exec.terminal.map(Terminal::open).transpose()?;
    let (mut ended, tell) = users::pipe()?;
    let keeper = fork::spawn(|| keep(exec, &stdin, terminal.as_ref(), tell))?;
    drop(stdin);
    if let Some(terminal) = &terminal {
        channel.send(&Reply::Ready).trying("the tool is gone")?;
        channel
            .send_descriptor(terminal.ours.as_fd())
            .trying("the tool is gone")?;
    }
    drop(terminal);
    // The streams are the command's alone: who reads them waits for their end.
    let null = OpenOptions::new()
        .write(true)
        .open("/dev/null")
        .trying("no /dev/null")?;
    (1..3)
        .try_for_each(|number| sys::place(null.as_fd(), number))
        .trying("cannot let go of streams")?;
    let code = watch(&mut ended, channel);
    if code.is_none() {
        host.end_all(keeper);
    }
    let _ = waitpid(keeper, None);
    code.ok_or_else(|| Failure::new(Kind::Failed, "it was ended before it was done"))
}

/// Enters the sandbox, all of it but the process namespace, where only children can be.
fn enter(exec: &Exec) -> Result<()> {
    let gone = || Failure::new(Kind::Failed, "it does not run any more");
    let process = exec.process.open().ok_or_else(gone)?;
    sys::set_open(false);
    let all = CloneFlags::CLONE_NEWUSER
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWCGROUP;
    let entered = setns(process, all);
    if entered == Err(Errno::ESRCH) {
        return Err(gone());
    }
    entered.trying("cannot enter the sandbox")?;
    users::become_root()?;
    sys::set_open(false);
    Ok(())
}

/// Waits for the command's end, and gives its code; none where the tool goes first.
fn watch(ended: &mut File, channel: &Channel) -> Option<i32> {
    loop {
        let (done, gone) = {
            let mut waited = [
                PollFd::new(&*ended, PollFlags::IN),
                PollFd::new(channel, PollFlags::IN | PollFlags::RDHUP),
            ];
            match poll(&mut waited, None) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            (!waited[0].revents().is_empty(), !waited[1].revents().is_empty())
        };
        if done {
            let mut code = [0; 4];
            return ended.read_exact(&mut code).ok().map(|()| i32::from_le_bytes(code));
        }
        if gone {
            return None;
        }
    }
}

/// The keeper: starts the command and waits for it.
fn keep(exec: &Exec, stdin: &OwnedFd, terminal: Option<&Terminal>, mut tell: File) -> i32 {
    let _ = nix::sys::prctl::set_child_subreaper(true);
    sys::set_open(false);
    let streams = [stdout(), stderr()].map(|stream| fcntl_dupfd_cloexec(stream, 3));
    let [Ok(stdout), Ok(stderr)] = streams else { return 1 };
    let Ok(command) = fork::spawn(|| become_command(exec, stdin, &stdout, &stderr, terminal)) else {
        return 1;
    };
    drop((stdout, stderr));
    // Nothing of the tool's stays with a process that is seen inside.
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _ = (0..3).try_for_each(|number| sys::place(null.as_fd(), number));
    }
    let code = loop {
        match waitpid(Pid::from_raw(-1), None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => break code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => break 128 + signal as i32,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    };
    // What the command has left behind goes on, as pid 1's.
    i32::from(tell.write_all(&code.to_le_bytes()).is_err())
}

/// The command's own process.
fn become_command(
    exec: &Exec,
    stdin: &OwnedFd,
    stdout: &OwnedFd,
    stderr: &OwnedFd,
    terminal: Option<&Terminal>,
) -> i32 {
    let prepared = (|| {
        setsid().trying("cannot make a session")?;
        match terminal {
            Some(terminal) => {
                sys::control(terminal.theirs.as_fd()).trying("cannot take the terminal")?;
                (0..3)
                    .try_for_each(|number| sys::place(terminal.theirs.as_fd(), number))
                    .trying("cannot use the terminal")?;
            }
            None => [stdin, stdout, stderr]
                .into_iter()
                .zip(0..)
                .try_for_each(|(stream, number)| sys::place(stream.as_fd(), number))
                .trying("cannot use the streams")?,
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        confine::drop_capabilities(false)?;
        become_account(exec)?;
        confine::shed(false, exec.uid == 0)?;
        if chdir(exec.folder.as_str()).is_err() {
            chdir("/").trying("cannot enter the root folder")?;
        }
        sys::default_signals();
        confine::filter(exec.ids.is_single())
    })();
    match prepared {
        Ok(()) => execute(exec),
        Err(Failure { message, .. }) => {
            complain(&message);
            NOT_RUN
        }
    }
}

/// Becomes the user as whom the command runs.
fn become_account(exec: &Exec) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(exec.uid), Gid::from_raw(exec.gid));
    if exec.ids.is_single() {
        if exec.uid != 0 {
            // The one user there is, under another number: everything of its is that number's then.
            unshare(CloneFlags::CLONE_NEWUSER).trying("cannot change the user")?;
            // The map of a closed process is closed, too.
            sys::set_open(true);
            for (file, text) in [
                ("setgroups", "deny".to_owned()),
                ("uid_map", format!("{} 0 1", exec.uid)),
                ("gid_map", format!("{} 0 1", exec.gid)),
            ] {
                std::fs::write(format!("/proc/self/{file}"), text).trying(format_args!("cannot write {file}"))?;
            }
        }
        return Ok(());
    }
    setgroups(&[gid]).trying("cannot change groups")?;
    setresgid(gid, gid, gid).trying("cannot change the group")?;
    setresuid(uid, uid, uid).trying("cannot change the user")
}

/// Turns into the program, looked for along `PATH` where it is a plain name. Comes back when that fails.
fn execute(exec: &Exec) -> i32 {
    let mut env = exec.env.clone();
    env.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    let texts = |texts: &mut dyn Iterator<Item = String>| texts.map(CString::new).collect::<Result<Vec<_>, _>>();
    let arguments = texts(&mut exec.command.iter().cloned());
    let variables = texts(&mut env.iter().map(|(key, value)| format!("{key}={value}")));
    let (Ok(arguments), Ok(variables), Some(program)) = (arguments, variables, exec.command.first()) else {
        complain("a command is texts without NUL, one at least");
        return NOT_RUN;
    };
    let places: Vec<String> = match program.contains('/') {
        true => vec![program.clone()],
        false => env["PATH"]
            .split(':')
            .map(|folder| format!("{folder}/{program}"))
            .collect(),
    };
    let mut why = Errno::ENOENT;
    for place in places {
        let Ok(place) = sys::c_string(&place) else { continue };
        let Err(error) = execve(&place, &arguments, &variables);
        if !matches!(error, Errno::ENOENT | Errno::ENOTDIR) {
            why = error;
        }
    }
    complain(&format!("{program}: {}", why.desc()));
    match why {
        Errno::ENOENT => NOT_FOUND,
        _ => NOT_RUN,
    }
}

/// Says something where the command would.
fn complain(text: &str) {
    let _ = rustix::io::write(stderr(), format!("sbx-apply: {text}\n").as_bytes());
}

/// A terminal of the sandbox's own.
struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
}

impl Terminal {
    fn open((columns, rows): (u16, u16)) -> Result<Self> {
        let flags =
            rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
        let make = || -> rustix::io::Result<Self> {
            let ours = rustix::pty::openpt(flags)?;
            rustix::pty::grantpt(&ours)?;
            rustix::pty::unlockpt(&ours)?;
            let theirs = rustix::pty::ioctl_tiocgptpeer(&ours, flags)?;
            rustix::termios::tcsetwinsize(
                &ours,
                rustix::termios::Winsize {
                    ws_row: rows,
                    ws_col: columns,
                    ws_xpixel: 0,
                    ws_ypixel: 0,
                },
            )?;
            Ok(Self { ours, theirs })
        };
        make().trying("cannot make a terminal")
    }
}
