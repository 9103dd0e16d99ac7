//! The imitated shell: a handful of commands that tests use, on the simulated disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::Memory;
use super::disk::Node;
use super::machine::Machine;
use super::words::{Command, Target, Unknown, parse};
use crate::backend::{Error, ErrorKind, ExecOpts, Result, Streams};
use crate::model::{GuestPath, InstanceName, Mode, Owner};

/// What a shell says of a command that it does not find (POSIX.1-2017, XCU 2.8.2).
pub(super) const NOT_FOUND: i32 = 127;

/// A command under way.
pub(super) struct Shell<'a, 's> {
    pub(super) memory: &'a Memory,
    pub(super) name: &'a InstanceName,
    pub(super) owner: Owner,
    pub(super) env: BTreeMap<String, String>,
    pub(super) streams: Streams<'s>,
}

/// What became of one command.
enum Done {
    Code(i32),
    Exit(i32),
}

impl Shell<'_, '_> {
    /// Runs a program: the shell, a script on the disk, or one of the commands that the shell knows.
    pub(super) async fn run(&mut self, opts: &ExecOpts) -> Result<i32> {
        let command: Vec<&str> = opts.command.iter().map(String::as_str).collect();
        match command[..] {
            ["/bin/sh" | "sh", "-ec", text, ..] => self.script(text, true).await,
            ["/bin/sh" | "sh", "-c", text, ..] => self.script(text, false).await,
            ["/bin/sh" | "sh", "-e", path] => self.file(path, Some(true)).await,
            ["/bin/sh" | "sh", path] => self.file(path, Some(false)).await,
            [path, ..] if path.starts_with('/') => self.file(path, None).await,
            [_, ..] => {
                let words = command.iter().map(|&word| word.to_owned()).collect();
                let command = Command {
                    words,
                    target: Target::Stdout,
                };
                self.command(&command).await.map(Done::code)
            }
            [] => Err(Error::new(ErrorKind::Invalid, "there is no command to run")),
        }
    }

    /// Runs a script on the disk; without `stop`, as its first line says.
    async fn file(&mut self, path: &str, stop: Option<bool>) -> Result<i32> {
        let bytes = self.machine(|machine| Ok(machine.read(path)))?;
        let text = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let Some(text) = text else {
            return self.unknown(path).await;
        };
        let stop = stop.or(match text.lines().next() {
            Some("#!/bin/sh") => Some(false),
            Some("#!/bin/sh -e") => Some(true),
            _ => None,
        });
        match stop {
            Some(stop) => self.script(&text, stop).await,
            None => self.unknown(path).await,
        }
    }

    /// Runs a script. With `stop` (`-e`), a command that fails ends it, unless another one waits for it
    /// behind `&&`.
    async fn script(&mut self, text: &str, stop: bool) -> Result<i32> {
        let script = match parse(text, &self.env) {
            Ok(script) => script,
            Err(Unknown(what)) => return self.unknown(&what).await,
        };
        let mut code = 0;
        for chain in script {
            let last = chain.len() - 1;
            for (at, command) in chain.iter().enumerate() {
                match self.command(command).await? {
                    Done::Exit(code) => return Ok(code),
                    Done::Code(now) => code = now,
                }
                if code != 0 && stop && at == last {
                    return Ok(code);
                }
                if code != 0 {
                    break;
                }
            }
        }
        Ok(code)
    }

    async fn command(&mut self, command: &Command) -> Result<Done> {
        let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
        let mut text = Vec::new();
        let code = match words[..] {
            ["true" | ":"] => 0,
            ["false"] => 1,
            ["exit"] => return Ok(Done::Exit(0)),
            ["exit", code] => match code.parse::<u8>() {
                Ok(code) => return Ok(Done::Exit(code.into())),
                Err(_) => return self.unknown("exit").await.map(Done::Exit),
            },
            ["echo", ..] => {
                text = format!("{}\n", words[1..].join(" ")).into_bytes();
                0
            }
            ["pwd"] => self.value("HOME", &mut text),
            ["id", "-u"] => say(&mut text, self.owner.uid),
            ["id", "-g"] => say(&mut text, self.owner.gid),
            ["test", "-e", path] => self.test(|machine| machine.root.at(path, true).is_some())?,
            ["test", "-f", path] => self.test(|machine| machine.read(path).is_some())?,
            ["test", "-d", path] => self.test(|machine| machine.root.at(path, true).is_some_and(Node::is_directory))?,
            ["cat"] => {
                if let Some(stdin) = &mut self.streams.stdin {
                    stdin.read_to_end(&mut text).await.map_err(broken)?;
                }
                0
            }
            ["cat", path] => match self.machine(|machine| Ok(machine.read(path)))? {
                Some(bytes) => {
                    text = bytes;
                    0
                }
                None => self.complain(&format!("cat: {path}: no such file")).await?,
            },
            ["sleep", seconds] => match seconds
                .parse::<f64>()
                .ok()
                .and_then(|s| Duration::try_from_secs_f64(s).ok())
            {
                Some(time) => {
                    tokio::time::sleep(time).await;
                    0
                }
                None => return self.unknown("sleep").await.map(Done::Code),
            },
            ["mkdir", "-p", path] => {
                self.make(
                    |machine, owner| match machine.root.at(path, true).is_some_and(Node::is_directory) {
                        true => Ok(()),
                        false => machine.directory(path, Mode::DIRECTORY, owner),
                    },
                )?
            }
            ["mkfifo", path] => self.make(|machine, _| machine.fifo(path))?,
            ["touch", path] => self.make(|machine, owner| match machine.root.at(path, true) {
                Some(_) => Ok(()),
                None => machine.write_as(path, "", Mode::FILE, owner),
            })?,
            ["rm", "-f" | "-rf", path] => self.machine(|machine| {
                // Nothing there is no failure with `-f`.
                let _ = machine.remove(path);
                Ok(0)
            })?,
            _ => {
                let what = words.join(" ");
                return self.unknown(&what).await.map(Done::Code);
            }
        };
        let written = self.deliver(&command.target, &text).await?;
        Ok(Done::Code(if code == 0 { written } else { code }))
    }

    /// Puts a command's output where it belongs.
    async fn deliver(&mut self, target: &Target, text: &[u8]) -> Result<i32> {
        match target {
            Target::Stdout => put(&mut self.streams.stdout, text).await?,
            Target::Stderr => put(&mut self.streams.stderr, text).await?,
            Target::File { path, append } => {
                let owner = self.owner;
                let done = self.machine(|machine| Ok(machine.redirect(path, *append, text, owner)))?;
                if let Err(error) = done {
                    return self.complain(&format!("sh: {error}")).await;
                }
            }
        }
        Ok(0)
    }

    fn make(&self, make: impl FnOnce(&mut Machine, Owner) -> Result<()>) -> Result<i32> {
        let owner = self.owner;
        self.machine(|machine| Ok(i32::from(make(machine, owner).is_err())))
    }

    fn test(&self, test: impl FnOnce(&Machine) -> bool) -> Result<i32> {
        self.machine(|machine| Ok(i32::from(!test(machine))))
    }

    fn value(&self, name: &str, text: &mut Vec<u8>) -> i32 {
        say(text, self.env.get(name).map_or("/", String::as_str))
    }

    /// The instance, as long as it runs: a stop ends what runs in it.
    fn machine<T>(&self, then: impl FnOnce(&mut Machine) -> Result<T>) -> Result<T> {
        let mut world = self.memory.world();
        let machine = world.machine_mut(self.name)?;
        if !machine.runs() {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("`{}` was stopped while a command ran in it", self.name),
            ));
        }
        then(machine)
    }

    async fn unknown(&mut self, what: &str) -> Result<i32> {
        let text = format!("memory backend does not know `{what}`\n");
        put(&mut self.streams.stderr, text.as_bytes()).await?;
        Ok(NOT_FOUND)
    }

    async fn complain(&mut self, what: &str) -> Result<i32> {
        put(&mut self.streams.stderr, format!("{what}\n").as_bytes()).await?;
        Ok(1)
    }
}

impl Done {
    fn code(self) -> i32 {
        match self {
            Self::Code(code) | Self::Exit(code) => code,
        }
    }
}

impl Machine {
    /// `> PATH` and `>> PATH`: follows links, keeps the mode and owner of what is there, makes no parents.
    fn redirect(&mut self, path: &str, append: bool, text: &[u8], owner: Owner) -> Result<()> {
        let at = GuestPath::new(path)
            .map_err(|source| Error::new(ErrorKind::Invalid, format!("{path}: no path")).with_source(source))?;
        let parent_is_there = at
            .parent()
            .is_none_or(|parent| self.root.at(parent.as_str(), true).is_some_and(Node::is_directory));
        if !parent_is_there {
            return Err(Error::not_found(format!("{path}: no such folder")));
        }
        let Some(place) = self.root.place(path) else {
            return self.write_as(path, text, Mode::FILE, owner);
        };
        let mut bytes = match append {
            true => self.read(path).unwrap_or_default(),
            false => Vec::new(),
        };
        bytes.extend_from_slice(text);
        match self.root.node_mut(&place) {
            Some(node) if node.is_file() => {
                *node = Node::file(Arc::from(bytes), node.mode, node.owner);
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Invalid, format!("{path}: not a regular file"))),
        }
    }
}

/// Writes to a stream, where there is one.
pub(super) async fn put(stream: &mut Option<Box<dyn AsyncWrite + Send + Unpin + '_>>, bytes: &[u8]) -> Result<()> {
    if let Some(stream) = stream {
        stream.write_all(bytes).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
    }
    Ok(())
}

fn broken(source: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "a stream of the command broke").with_source(source)
}

fn say(text: &mut Vec<u8>, value: impl ToString) -> i32 {
    text.extend_from_slice(value.to_string().as_bytes());
    text.push(b'\n');
    0
}
