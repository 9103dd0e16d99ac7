//! Getting into a sandbox: where it is, that the key is inside, and that what answers is the sandbox.
//!
//! The key is put in once, through the system's own door for files, into an instance that no command of anybody's has run
//! in yet: that door writes as the system's root and follows links, so a sandbox that was in use could lead it out. What
//! answers at the sandbox's address then has to show what was written beside the key, which came there by the trusted
//! connection to the system: only the sandbox itself can know it. The host key that it has shown is kept with the
//! instance, and nothing else is believed afterwards. A clone has its source's disk, and so its keys.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use russh::keys::{PrivateKey, PublicKey};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::Session;
use crate::backend::error::Untouched;
use crate::backend::marked::mark;
use crate::backend::truenas::TrueNas;
use crate::backend::truenas::convert::own;
use crate::backend::truenas::dialect::{Machine, Update};
use crate::backend::{Error, ErrorKind, Fence, Result};
use crate::model::{InstanceName, Status};

/// How long a running sandbox may take until its SSH server lets somebody in.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries, at first and at most.
const FIRST: Duration = Duration::from_millis(100);
const LAST: Duration = Duration::from_secs(2);
/// After so long without an answer, a new sandbox is taken to have no SSH server.
pub(in crate::backend::truenas) const NO_SERVER: Duration = Duration::from_secs(15);
/// How long installing one may take.
const INSTALL: Duration = Duration::from_secs(5 * 60);

/// Where keys may be, below a root folder.
const FOLDER: &str = "/root/.ssh";
const KEYS: &str = "authorized_keys";

/// Puts an SSH server in, with whatever the image has for that.
const INSTALL_SERVER: &str = "\
if command -v apt-get >/dev/null; then export DEBIAN_FRONTEND=noninteractive; apt-get update && apt-get install -y openssh-server; \
elif command -v apk >/dev/null; then apk add openssh-server openssh-sftp-server && rc-update add sshd default && rc-service sshd start; \
elif command -v dnf >/dev/null; then dnf install -y openssh-server && systemctl enable --now sshd; \
elif command -v pacman >/dev/null; then pacman -Sy --noconfirm openssh && systemctl enable --now sshd; \
elif command -v zypper >/dev/null; then zypper -n install openssh-server && systemctl enable --now sshd; \
else echo 'no package manager that is known'; fi 2>&1 | tail -n 3";

/// Open connections, and what is needed to open more.
#[derive(Debug, Default)]
pub(in crate::backend::truenas) struct Doors {
    /// Where sandboxes are found by their names, as a domain; by what the system tells when none.
    domain: Option<String>,
    pub(super) keys: Mutex<HashMap<String, Arc<PrivateKey>>>,
    open: Mutex<HashMap<String, Arc<Session>>>,
    /// Held while one sandbox is entered.
    entering: Mutex<HashMap<String, Arc<Mutex<()>>>>,
    /// Addresses that had to be asked for inside.
    addresses: Mutex<HashMap<String, Vec<IpAddr>>>,
}

#[derive(Debug, Deserialize)]
struct Stat {
    realpath: String,
}

impl Doors {
    /// None is open yet.
    pub(in crate::backend::truenas) fn new(domain: Option<String>) -> Self {
        Self {
            domain,
            ..Self::default()
        }
    }

    /// Lets go of a sandbox: it is about to stop, or to be another.
    pub(in crate::backend::truenas) async fn shut(&self, name: &str) {
        self.addresses.lock().await.remove(name);
        if let Some(session) = self.open.lock().await.remove(name) {
            session.close().await;
        }
    }

    /// Lets go of all.
    pub(in crate::backend::truenas) async fn shut_all(&self) {
        let all: Vec<_> = self.open.lock().await.drain().collect();
        for (_, session) in all {
            session.close().await;
        }
    }

    async fn lock_of(&self, name: &str) -> Arc<Mutex<()>> {
        self.entering.lock().await.entry(name.to_owned()).or_default().clone()
    }

    async fn opened(&self, name: &str) -> Option<Arc<Session>> {
        let mut open = self.open.lock().await;
        match open.get(name) {
            Some(session) if session.is_open() => Some(session.clone()),
            Some(_) => {
                open.remove(name);
                None
            }
            None => None,
        }
    }
}

impl TrueNas {
    /// A connection into a running sandbox. Waits for its SSH server, and puts the key in where nobody has been yet.
    pub(in crate::backend::truenas) async fn enter(&self, name: &InstanceName) -> Result<(Arc<Session>, Machine)> {
        self.enter_until(name, Instant::now() + PATIENCE).await
    }

    /// The same, waiting until then.
    pub(in crate::backend::truenas) async fn enter_until(
        &self,
        name: &InstanceName,
        until: Instant,
    ) -> Result<(Arc<Session>, Machine)> {
        let machine = self.running(name).await?;
        let session = self.session_of(machine.clone(), true, until).await?;
        Ok((session, machine))
    }

    /// The same for looking only: the key is put in by whoever works under a lock, and by nobody who has promised to
    /// change nothing.
    pub(in crate::backend::truenas) async fn look_in(&self, name: &InstanceName) -> Result<Arc<Session>> {
        let machine = self.running(name).await?;
        let may_provide = Fence::current().is_some();
        self.session_of(machine, may_provide, Instant::now() + PATIENCE).await
    }

    /// The instance, where it runs.
    async fn running(&self, name: &InstanceName) -> Result<Machine> {
        let machine = self.machine(name).await?;
        match machine.status {
            Status::Running => Ok(machine),
            _ => {
                self.doors.shut(name.as_str()).await;
                Err(Error::new(ErrorKind::Invalid, format!("`{name}` does not run")))
            }
        }
    }

    async fn session_of(&self, machine: Machine, may_provide: bool, until: Instant) -> Result<Arc<Session>> {
        if let Some(session) = self.doors.opened(&machine.name).await {
            return Ok(session);
        }
        let lock = self.doors.lock_of(&machine.name).await;
        let _held = lock.lock().await;
        if let Some(session) = self.doors.opened(&machine.name).await {
            return Ok(session);
        }
        // Whoever was faster may have been the first in it.
        let machine = match machine.carried.own.contains_key(own::HOST_KEY) {
            true => machine,
            false => self.dialect.machine(&machine.name).await?,
        };
        let Some(environment) = machine.carried.own.get(own::KEY) else {
            return Err(stranger(&machine.name));
        };
        let session = match machine.carried.own.get(own::HOST_KEY) {
            Some(host_key) => {
                let expected = PublicKey::from_openssh(host_key).map_err(|error| {
                    Error::new(ErrorKind::Failed, "the kept host key cannot be read").with_source(error)
                })?;
                let key = self.key_of(environment).await?;
                self.knock(&machine, &key, Some(expected), until).await?
            }
            None if may_provide => self.provide(&machine, environment, until).await?,
            None => return Err(untouched(&machine.name)),
        };
        let session = Arc::new(session);
        self.doors
            .open
            .lock()
            .await
            .insert(machine.name.clone(), session.clone());
        Ok(session)
    }

    /// Puts the key in, and learns the host key.
    async fn provide(&self, machine: &Machine, environment: &str, until: Instant) -> Result<Session> {
        let key = self.key_of(environment).await?;
        let public = key.public_key().to_openssh().map_err(|error| {
            Error::new(ErrorKind::Failed, "the environment's SSH key cannot be written").with_source(error)
        })?;
        // Twice 64 bits of chance.
        let proof = format!("{}{}", mark()?, mark()?);
        let root = self.dialect.root(machine).await?;
        self.refuse_links(&root).await?;
        let content = BASE64.encode(format!("# sbx-apply {proof}\n{public}\n"));
        let params = json!([
            format!("{root}{FOLDER}/{KEYS}"),
            content,
            { "append": false, "mode": 0o600, "uid": 0, "gid": 0 },
        ]);
        self.client
            .change("filesystem.file_receive", params)
            .await
            .map_err(|error| error.within("cannot put the SSH key in"))?;
        let session = self.knock(machine, &key, None, until).await?;
        let said = session.output(&format!("exec cat {FOLDER}/{KEYS}\n"), &[]).await?;
        if !String::from_utf8_lossy(&said.stdout).contains(&proof) {
            return Err(Error::new(
                ErrorKind::Unauthorised,
                format!("what answers at the address of `{}` is not the sandbox", machine.name),
            )
            .with_hint("somebody in its network answers in its place"));
        }
        let host_key = session.host_key.to_openssh().map_err(|error| {
            Error::new(ErrorKind::Failed, "the sandbox's host key cannot be written").with_source(error)
        })?;
        // Read anew: labels may have changed meanwhile.
        let now = self.dialect.machine(&machine.name).await?;
        let mut carried = now.carried.clone();
        carried.own.insert(own::HOST_KEY.to_owned(), host_key);
        let update = Update {
            variables: Some(carried.write()?),
            ..Update::default()
        };
        self.dialect.update(&now, update).await?;
        Ok(session)
    }

    /// Looks that no link leads a write out of a root folder. Nobody has been in it who could make one meanwhile.
    async fn refuse_links(&self, root: &str) -> Result<()> {
        for path in [
            format!("{root}/root"),
            format!("{root}{FOLDER}"),
            format!("{root}{FOLDER}/{KEYS}"),
        ] {
            let stat: Result<Stat> = self.client.read("filesystem.stat", json!([path])).await;
            match stat {
                Ok(stat) if stat.realpath == path => {}
                Ok(_) => {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("`{path}` is a link: the SSH key is not written through it"),
                    )
                    .with_hint("use an image in which /root is a folder"));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.within("cannot look where the SSH key goes")),
            }
        }
        Ok(())
    }

    /// Connects, and waits for somebody to answer. A sandbox whose host key is not known is new.
    async fn knock(
        &self,
        machine: &Machine,
        key: &Arc<PrivateKey>,
        expected: Option<PublicKey>,
        mut until: Instant,
    ) -> Result<Session> {
        let begun = Instant::now();
        let mut pause = FIRST;
        let is_new = expected.is_none();
        let mut may_install = is_new;
        loop {
            let error = match self.try_all(machine, key, expected.as_ref()).await {
                Ok(session) => return Ok(session),
                // A server that starts with its first connections is not ready to let in what was written just now.
                Err(error) if error.kind() == ErrorKind::Unauthorised && is_new && begun.elapsed() < NO_SERVER => error,
                Err(error) if error.kind() != ErrorKind::Unreachable => return Err(error),
                Err(error) => error,
            };
            if may_install && begun.elapsed() > NO_SERVER {
                may_install = false;
                tracing::info!(instance = machine.name, "no SSH server answers: installing one");
                match timeout(INSTALL, self.shell_output(machine, INSTALL_SERVER)).await {
                    Ok(Ok(said)) => tracing::info!(instance = machine.name, said, "installed"),
                    Ok(Err(error)) => tracing::info!(instance = machine.name, %error, "cannot install one"),
                    Err(_) => tracing::info!(instance = machine.name, "installing one takes too long"),
                }
                until = Instant::now() + PATIENCE;
            }
            tracing::debug!(instance = machine.name, %error, "no way in yet");
            if Instant::now() + pause >= until {
                return Err(error.with_hint(
                    "a sandbox on TrueNAS needs an SSH server with root's login by key, on an address that this machine \
                     reaches: see the setting `network`",
                ));
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST);
        }
    }

    async fn try_all(&self, machine: &Machine, key: &Arc<PrivateKey>, expected: Option<&PublicKey>) -> Result<Session> {
        let hosts = self.hosts(machine).await?;
        let mut last = Error::new(ErrorKind::Unreachable, format!("`{}` has no address yet", machine.name));
        for host in hosts {
            match Session::open(&host, self.ssh_port, key, expected.cloned()).await {
                Ok(session) => return Ok(session),
                Err(error) => last = error,
            }
        }
        self.doors.addresses.lock().await.remove(&machine.name);
        Err(last)
    }

    /// Where a running sandbox may be reached, IPv4 first.
    async fn hosts(&self, machine: &Machine) -> Result<Vec<String>> {
        if let Some(domain) = &self.doors.domain {
            return Ok(vec![format!("{}.{domain}", machine.name)]);
        }
        let addresses = self.addresses_of(machine).await?;
        Ok(addresses.iter().map(ToString::to_string).collect())
    }

    /// The addresses of a running instance, IPv4 first.
    pub(in crate::backend::truenas) async fn addresses_of(&self, machine: &Machine) -> Result<Vec<IpAddr>> {
        let mut addresses = match self.dialect.tells_addresses() {
            // They come after the start.
            true => self.dialect.machine(&machine.name).await?.addresses,
            false => {
                let known = self.doors.addresses.lock().await.get(&machine.name).cloned();
                match known {
                    Some(known) => known,
                    None => {
                        let found = self.ask_addresses(machine).await?;
                        let mut known = self.doors.addresses.lock().await;
                        if !found.is_empty() {
                            known.insert(machine.name.clone(), found.clone());
                        }
                        found
                    }
                }
            }
        };
        addresses.sort_by_key(IpAddr::is_ipv6);
        Ok(addresses)
    }
}

fn untouched(name: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("nobody has been in `{name}` yet, and looking would put a key in"),
    )
    .with_hint("apply finishes what was begun")
    .with_source(Untouched)
}

fn stranger(name: &str) -> Error {
    Error::unsupported(format!("sbx-apply has no key for `{name}`: it was not made by it"))
        .with_hint("on TrueNAS, only sandboxes that were made by sbx-apply can be entered: make it anew from an image")
}
