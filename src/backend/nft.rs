//! This machine's packet filter, by the program nft(8).

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ipnet::IpNet;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::{Error, ErrorKind, Result};
use crate::model::{Opening, PinnedPolicy, PortRange, Protocol};

/// Every port.
const ALL: PortRange = PortRange {
    first: 1,
    last: u16::MAX,
};

/// The program, of this machine and not of whoever set `PATH`.
#[derive(Debug, Clone)]
pub(super) struct Nft(PathBuf);

impl Nft {
    /// Where it is, if it is there.
    pub(super) fn find() -> Option<Self> {
        let folders = [
            "/usr/sbin",
            "/usr/bin",
            "/sbin",
            "/bin",
            "/usr/local/sbin",
            "/usr/local/bin",
        ];
        let mut programs = folders.iter().map(|folder| Path::new(folder).join("nft"));
        programs.find(|path| path.is_file()).map(Self)
    }

    /// Where it is, for people.
    pub(super) fn place(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    /// Does what a text says: all of it or nothing.
    pub(super) async fn load(&self, text: String) -> Result<()> {
        let output = self.run(vec!["-f".to_owned(), "-".to_owned()], text).await?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Failed,
                format!("{} refuses the rules: {}", self.0.display(), first_line(&output)),
            )),
        }
    }

    /// A table of the family `inet`, as it prints it; none where there is no such table.
    pub(super) async fn table(&self, name: &str) -> Result<Option<String>> {
        let arguments = ["-s", "list", "table", "inet", name].map(str::to_owned);
        let output = self.run(arguments.to_vec(), String::new()).await?;
        if output.status.success() {
            return Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()));
        }
        let said = first_line(&output);
        match said.contains("No such file or directory") {
            true => Ok(None),
            false => Err(Error::new(
                ErrorKind::Failed,
                format!("{} cannot list the rules: {said}", self.0.display()),
            )),
        }
    }

    /// The elements of a set, as it prints them, counters included.
    pub(super) async fn set(&self, table: &str, set: &str) -> Result<String> {
        let arguments = ["list", "set", "inet", table, set].map(str::to_owned);
        let output = self.run(arguments.to_vec(), String::new()).await?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(Error::new(
                ErrorKind::Failed,
                format!(
                    "{} cannot list what was seen: {}",
                    self.0.display(),
                    first_line(&output)
                ),
            )),
        }
    }

    /// Makes a table that goes with what this gives, or with this process, however that ends: the kernel removes it when
    /// the program that it belongs to lets go of it (`flags owner`, Linux 5.12). `rules` is one line.
    pub(super) async fn hold(&self, table: &str, rules: &str) -> Result<Held> {
        let cannot =
            |source| Error::new(ErrorKind::Failed, format!("cannot run {}", self.0.display())).with_source(source);
        let mut child = tokio::process::Command::new(&self.0)
            .arg("-i")
            .env_clear()
            // No history of what it was told.
            .env("HOME", "/dev/null")
            .current_dir("/")
            // Ctrl-C is not meant for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(cannot)?;
        if let Some(pipe) = &mut child.stdin {
            let line = format!("table inet {table} {{ flags owner; {rules} }}\n");
            pipe.write_all(line.as_bytes()).await.map_err(cannot)?;
            pipe.flush().await.map_err(cannot)?;
        }
        for _ in 0..PATIENCE {
            if self.table(table).await?.is_some() {
                return Ok(Held(child));
            }
            sleep(PAUSE).await;
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{} cannot keep rules that go with it", self.0.display()),
        )
        .with_hint("this needs Linux 5.12 and nftables 0.9.9, or newer"))
    }

    async fn run(&self, arguments: Vec<String>, stdin: String) -> Result<Output> {
        let program = self.0.clone();
        let run = move || -> io::Result<Output> {
            let mut child = Command::new(&program)
                .args(arguments)
                .env_clear()
                .current_dir("/")
                // Ctrl-C is not meant for it.
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()?;
            if let Some(mut pipe) = child.stdin.take() {
                pipe.write_all(stdin.as_bytes())?;
            }
            child.wait_with_output()
        };
        let done = tokio::task::spawn_blocking(run).await.map_err(io::Error::other);
        done.flatten().map_err(|source| {
            Error::new(ErrorKind::Failed, format!("cannot run {}", self.0.display())).with_source(source)
        })
    }
}

/// How often it is looked for a table that is held, and the pause in between.
const PATIENCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// A table that lasts as long as this.
#[derive(Debug)]
pub(super) struct Held(Child);

impl Held {
    /// Lets go of it, and comes back when it is gone.
    pub(super) async fn end(mut self) {
        drop(self.0.stdin.take());
        if timeout(Duration::from_secs(5), self.0.wait()).await.is_err() {
            let _ = self.0.kill().await;
        }
    }
}

fn first_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().next().unwrap_or("it failed").trim().to_owned()
}

/// A text without regard to its spaces and lines.
pub(super) fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// What makes a table that must not be there yet.
pub(super) fn fresh(table: &str) -> String {
    format!("create table inet {table}\n")
}

/// What removes a table, also where there is none: deleting that is an error, so it is made first.
pub(super) fn without(table: &str) -> String {
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// What a connection is marked with that a policy opens to another sandbox by its name (`sbxp`). Whoever guards that one
/// lets such connections in, and what answers them out, and needs to know nothing more of them.
pub(super) const PEER: &str = "0x73627870";

/// What may come back to whoever has a policy, from the sandboxes that it opens by their names, and that nothing else
/// may by such a connection: what a policy no longer opens ends for both of its ends. In the words of nft(8), verdicts
/// included.
pub(super) fn answers(policy: Option<&PinnedPolicy>) -> Vec<String> {
    let mut rules = Vec::new();
    let mut peers = BTreeSet::new();
    let named = policy.into_iter().flat_map(|policy| {
        let open = policy.open.iter().filter(|opening| opening.to.sandbox().is_some());
        open.flat_map(|opening| {
            let networks = opening.networks(&policy.addresses);
            networks.map(move |network| (opening, network.addr()))
        })
    });
    let back = format!("ct direction reply ct mark {PEER}");
    for (opening, address) in named {
        let ports = opening.ports.unwrap_or(ALL);
        let protocols = protocols(opening).into_iter();
        rules.extend(protocols.map(|protocol| format!("ip saddr {address} {protocol} sport {ports} {back} accept")));
        peers.insert(address);
    }
    // That nobody listens there.
    let errors = peers.into_iter();
    rules.extend(errors.map(|address| format!("ip saddr {address} icmp type destination-unreachable {back} accept")));
    rules.push(format!("{back} drop"));
    rules
}

fn protocols(opening: &Opening) -> Vec<Protocol> {
    match opening.protocol {
        Some(protocol) => vec![protocol],
        None => vec![Protocol::Tcp, Protocol::Udp],
    }
}

/// What IPv6 is called in rules.
const SIX: &str = "ip6";

/// Whether a rule of [`opened`] is for IPv6.
pub(super) fn is_ipv6(rule: &str) -> bool {
    rule.starts_with(SIX) || rule.starts_with("meta nfproto ipv6")
}

/// Without these, no machine finds its router by IPv6 (RFC 4861): they lead no further than to that. Never behind extension
/// headers: Incus looks for the address that an advertisement is of where it lies without any, so that a sandbox could say
/// that a neighbour's is its own, and get what is sent to that one.
pub(super) const NEIGHBOURS: &str = "exthdr hbh missing exthdr dst missing exthdr rt missing icmpv6 type { \
                                     nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert } accept";

/// What a policy opens, a match for each network and protocol, in the words in which nft(8) prints it. What leads to
/// other sandboxes is marked.
pub(super) fn opened(policy: &PinnedPolicy) -> Vec<String> {
    let mut rules = Vec::new();
    for opening in &policy.open {
        let protocols = protocols(opening);
        let ports = opening.ports.unwrap_or(ALL);
        for network in opening.networks(&policy.addresses) {
            let (family, of_family) = match network {
                IpNet::V4(_) => ("ip", "ipv4"),
                IpNet::V6(_) => (SIX, "ipv6"),
            };
            let to = match network.prefix_len() {
                0 => format!("meta nfproto {of_family}"),
                all if all == network.max_prefix_len() => format!("{family} daddr {}", network.addr()),
                _ => format!("{family} daddr {}", network.trunc()),
            };
            let mark = match opening.to.sandbox() {
                Some(_) => format!(" ct mark set {PEER}"),
                None => String::new(),
            };
            let rules_of = protocols.iter();
            rules.extend(rules_of.map(|protocol| format!("{to} {protocol} dport {ports}{mark}")));
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{Enforcement, EnvironmentName, PolicyKey};

    #[test]
    fn only_what_is_open_comes_back() {
        let open = ["sandbox/db:5432/tcp", "sandbox/cache:53", "192.0.2.1:80/tcp"];
        let address = |text: &str| BTreeSet::from([text.parse().expect("an address")]);
        let policy = PinnedPolicy {
            key: PolicyKey {
                environment: EnvironmentName::new("demo").expect("a name"),
                name: "web".to_owned(),
            },
            enforce: Enforcement::Host,
            open: open.iter().map(|text| text.parse().expect("an opening")).collect(),
            addresses: BTreeMap::from([
                ("sandbox/db".to_owned(), address("10.0.0.2")),
                ("sandbox/cache".to_owned(), address("10.0.0.6")),
            ]),
        };
        let back = format!("ct direction reply ct mark {PEER}");
        let expected = [
            format!("ip saddr 10.0.0.6 tcp sport 53 {back} accept"),
            format!("ip saddr 10.0.0.6 udp sport 53 {back} accept"),
            format!("ip saddr 10.0.0.2 tcp sport 5432 {back} accept"),
            format!("ip saddr 10.0.0.2 icmp type destination-unreachable {back} accept"),
            format!("ip saddr 10.0.0.6 icmp type destination-unreachable {back} accept"),
            format!("{back} drop"),
        ];
        assert_eq!(answers(Some(&policy)), expected);
        assert_eq!(answers(None), expected[5..]);
    }
}
