//! The system's web shell: a terminal in a sandbox without SSH.
//!
//! It knows no exit codes and no streams, so it is used where there is nothing else: to ask a new sandbox for its
//! addresses on 26, to put an SSH server into an image that has none, and for a console into one that does not answer.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::TrueNas;
use super::client::{Io, shake_hands};
use super::dialect::{Machine, Shell};
use crate::backend::{Error, ErrorKind, Result, Terminal};

/// Where the shell is.
const PATH: &str = "/websocket/shell";
/// How long a token is good for, in seconds.
const TOKEN: u32 = 300;
/// How long the shell may take to be there.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(20);
/// Before and after what a script says: what is typed is shown, too, but not with these.
const BEGIN: char = '\u{1}';
const END: char = '\u{2}';
/// The most that is kept of what a script says.
const MOST: usize = 1 << 20;
/// What a session ends with, whatever has come of it: nobody must take it for a success.
const NO_CODE: i32 = 125;

type Socket = WebSocketStream<Box<dyn Io>>;

impl TrueNas {
    /// Opens a shell, and gives its number.
    async fn shell(&self, shell: &Shell) -> Result<(Socket, String)> {
        let broken = || Error::new(ErrorKind::Unreachable, "the web shell does not open");
        let token = self.client.token(TOKEN).await?;
        let stream = self.client.stream().await?;
        let mut socket = shake_hands(stream, &self.client.address().websocket(PATH)).await?;
        let hello = json!({ "token": token, "options": shell.options });
        let said = timeout(CONNECT, async {
            socket.send(Message::text(hello.to_string())).await.ok()?;
            loop {
                if let Message::Text(text) = socket.next().await?.ok()? {
                    return serde_json::from_str::<Value>(&text).ok();
                }
            }
        });
        let said = said.await.ok().flatten().ok_or_else(broken)?;
        match (
            said.get("msg").and_then(Value::as_str),
            said.get("id").and_then(Value::as_str),
        ) {
            (Some("connected"), Some(id)) => {
                if let Some(typed) = &shell.typed {
                    socket
                        .send(Message::binary(typed.clone().into_bytes()))
                        .await
                        .map_err(|error| broken().with_source(error))?;
                }
                Ok((socket, id.to_owned()))
            }
            _ => {
                let why = said
                    .pointer("/error/reason")
                    .and_then(Value::as_str)
                    .unwrap_or_default();
                Err(Error::new(
                    ErrorKind::Failed,
                    format!("the web shell does not open: {why}"),
                ))
            }
        }
    }

    /// What a script says, to its end.
    pub(super) async fn shell_output(&self, machine: &Machine, script: &str) -> Result<String> {
        let framed = format!("printf '\\001'; {script}; printf '\\002'");
        let mut shell = self.dialect.shell(machine, &framed);
        if let Some(typed) = &mut shell.typed {
            typed.push_str("; exit\n");
        }
        let (mut socket, _) = self.shell(&shell).await?;
        let mut said = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            match message {
                Message::Binary(bytes) => said.extend_from_slice(&bytes),
                Message::Text(text) => said.extend_from_slice(text.as_bytes()),
                Message::Close(_) => break,
                _ => {}
            }
            if said.len() > MOST || said.contains(&(END as u8)) {
                break;
            }
        }
        let _ = timeout(Duration::from_millis(200), socket.close(None)).await;
        let said = String::from_utf8_lossy(&said).replace('\r', "");
        let between = said.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
        between
            .map(|(between, _)| between.trim().to_owned())
            .ok_or_else(|| Error::new(ErrorKind::Unreachable, "the web shell has ended early"))
    }

    /// The addresses of global scope, as the sandbox's kernel tells them.
    pub(super) async fn ask_addresses(&self, machine: &Machine) -> Result<Vec<IpAddr>> {
        let asked = self.shell_output(machine, "cat /proc/net/fib_trie /proc/net/if_inet6 2>/dev/null");
        match timeout(ANSWER, asked).await {
            Ok(said) => Ok(addresses(&said?)),
            Err(_) => Err(Error::new(
                ErrorKind::Unreachable,
                "the web shell does not say the sandbox's addresses",
            )),
        }
    }

    /// An interactive session by the web shell, and why: it tells no exit code, and says so before anything else.
    pub(super) async fn shell_session(
        &self,
        machine: &Machine,
        script: &str,
        terminal: Terminal<'_>,
        why: &Error,
    ) -> Result<i32> {
        let mut shell = self.dialect.shell(machine, script);
        if let Some(typed) = &mut shell.typed {
            typed.push('\n');
        }
        let (socket, id) = self.shell(&shell).await?;
        let (mut to, mut from) = socket.split();
        let Terminal {
            mut input,
            mut output,
            mut size,
            ..
        } = terminal;
        // Where sessions are, somebody looks; on a raw terminal a line ends with both.
        let told = format!("SSH leads nowhere ({why}): this is the system's web shell, which tells no exit code.\r\n");
        if output.write_all(told.as_bytes()).await.is_err() || output.flush().await.is_err() {
            return Ok(NO_CODE);
        }
        let typing = async {
            let mut buffer = vec![0; 4096];
            while let Ok(count @ 1..) = input.read(&mut buffer).await {
                if to.send(Message::binary(buffer[..count].to_vec())).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let following = async {
            loop {
                let (columns, rows) = *size.borrow_and_update();
                let resized: Result<Value> = self.client.read("core.resize_shell", json!([id, columns, rows])).await;
                if resized.is_err() || size.changed().await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        let showing = async {
            while let Some(Ok(message)) = from.next().await {
                let bytes = match &message {
                    Message::Binary(bytes) => &bytes[..],
                    Message::Text(text) => text.as_bytes(),
                    Message::Close(_) => break,
                    _ => continue,
                };
                if output.write_all(bytes).await.is_err() || output.flush().await.is_err() {
                    break;
                }
            }
        };
        tokio::select! {
            () = showing => {}
            () = typing => {}
            () = following => {}
        }
        Ok(NO_CODE)
    }
}

/// Addresses in the kernel's own tables (Linux, `/proc/net/fib_trie` and `/proc/net/if_inet6`): local ones, but for those
/// of the loopback and the link.
fn addresses(tables: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut candidate: Option<IpAddr> = None;
    for line in tables.lines() {
        if let Some(address) = line.trim().strip_prefix("|-- ") {
            candidate = address.parse().ok();
        } else if line.contains("host LOCAL") {
            found.extend(candidate.take());
        } else if let [hex, _, _, "00", _, _] = line.split_whitespace().collect::<Vec<_>>()[..]
            && let Ok(bits) = u128::from_str_radix(hex, 16)
            && hex.len() == 32
        {
            // Scope 0 is global.
            found.push(std::net::Ipv6Addr::from(bits).into());
        }
    }
    found.retain(|address| match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback(),
    });
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let tables = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 10.5.0.0/24 2 0 2\n\
            \x20       |-- 10.5.0.0\n           /24 link UNICAST\n        |-- 10.5.0.17\n           /32 host LOCAL\n\
            \x20       |-- 10.5.0.255\n           /32 link BROADCAST\n     +-- 127.0.0.0/8 2 0 2\n        |-- 127.0.0.1\n\
            \x20          /32 host LOCAL\nLocal:\n        |-- 10.5.0.17\n           /32 host LOCAL\n\
            00000000000000000000000000000001 01 80 10 80       lo\n\
            fd420000000000000216 3efffe000001 03 40 00 80 eth0\n\
            fe80000000000000021600fffe000001 03 40 20 80     eth0\n\
            fd42000000000000021600fffe000001 03 40 00 80     eth0\n";
        let found: Vec<String> = addresses(tables).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.5.0.17", "fd42::216:ff:fe00:1"]);
    }
}
