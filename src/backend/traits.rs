//! What every backend answers.
//!
//! The contract that holds for all calls:
//! - They may be made concurrently, on different instances; [`Capabilities::concurrency`] says how many at
//!   once are wise.
//! - A change has happened when the call returns; there is nothing to wait for afterwards.
//! - Transient trouble (busy, conflict, a lost connection) is retried inside, with backoff and a bound, where
//!   trying again cannot do a thing twice.
//! - An instance that is not there is [`super::ErrorKind::NotFound`].
//! - Links inside a sandbox never lead a call out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::kept::Kept;
use super::{
    Changes, ConsoleOpts, CreateOpts, Error, ErrorKind, ExecOpts, FileChange, FileEntry, Output, Result, Scope, Stop,
    Streams, Terminal, resolve,
};
use crate::model::{
    Attach, Capabilities, Content, Destination, EgressMode, EnvironmentName, GuestPath, HostMount, Inspection,
    Instance, InstanceName, Labels, Learned, LiveInstance, LivePolicy, LookInside, Mode, Note, NoteKey, Opening, Owner,
    Ownership, PinnedPolicy, PolicyKey, Protocol, Query, Snapshot, VolumeKey, agent_preset,
};

/// Reading instances and snapshots.
#[async_trait]
pub trait Observe: Debug + Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// What answers, with its version, for people: `Incus 6.0.4 at /run/incus/unix.socket`.
    async fn describe(&self) -> Result<String>;

    /// One instance, its addresses included.
    async fn get(&self, name: &InstanceName) -> Result<Instance>;

    /// The IPv4 address by which other instances reach one, as its host knows it and not as anybody says inside; none
    /// while it has none, and where there is no such instance.
    async fn address_of(&self, name: &InstanceName) -> Result<Option<Ipv4Addr>> {
        let instance = match self.get(name).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            instance => instance?,
        };
        Ok(instance.addresses.into_iter().find_map(|address| match address {
            IpAddr::V4(four) => Some(four),
            IpAddr::V6(_) => None,
        }))
    }

    /// Every instance in reach, ours and others'.
    async fn list(&self) -> Result<Vec<Instance>>;

    /// The snapshots of an instance, oldest first.
    async fn list_snapshots(&self, name: &InstanceName) -> Result<Vec<Snapshot>>;

    /// All that a plan needs of the instances in the scope, but their files. Few requests, whatever their
    /// number. Incus: one where there are none; one more for each of up to four, which cost the daemon nothing
    /// but themselves; two for more, of which the second makes it look into everybody's instances.
    async fn observe(&self, scope: &Scope) -> Result<Vec<LiveInstance>>;

    /// [`LiveInstance::mounted`] of one instance. Incus: one request. Nothing where a backend knows of no such thing.
    async fn mounts(&self, _name: &InstanceName) -> Result<BTreeSet<GuestPath>> {
        Ok(BTreeSet::new())
    }

    /// Whether an instance may have a setting, as a spec's `config` writes it: an error that says why not. No error where
    /// nobody can tell without trying. Asks nobody.
    fn check_setting(&self, _key: &str, _value: &str) -> Result<()> {
        Ok(())
    }

    /// Whether an instance could be made from an image, as a spec writes it: an error that says what is missing
    /// where it could not. Where nobody can tell without trying, or not cheaply, it is no error. Incus: up to two
    /// requests; what lies on another server is not looked for there.
    async fn find_image(&self, _image: &str) -> Result<()> {
        Ok(())
    }

    /// The volumes that an environment owns, attached or not, each with how much it may hold; see
    /// [`crate::model::Workspace::volume_sizes`]. Incus: one request, and one for each storage pool.
    async fn volumes(&self, _environment: &EnvironmentName) -> Result<BTreeMap<VolumeKey, Option<String>>> {
        Ok(BTreeMap::new())
    }

    /// What instances have mounted of this machine, whosever they are and whoever mounted it. Nothing of a backend that holds on
    /// to what it has once looked at: there nobody can turn a source into a link to something else. Incus: one request.
    async fn host_mounts(&self) -> Result<BTreeMap<InstanceName, Vec<HostMount>>> {
        Ok(BTreeMap::new())
    }

    /// Which of these ports of the host, on 127.0.0.1 or ::1, cannot be had; each with what is the matter with it, as in `is
    /// taken: somebody listens there`. None where nobody can tell without opening them.
    async fn taken_ports(&self, _ports: &BTreeSet<(u16, Protocol)>) -> Result<BTreeMap<(u16, Protocol), String>> {
        Ok(BTreeMap::new())
    }

    /// Whether instances can be made here at all, by trying what can be tried without making one: an error that says
    /// what is missing, with a hint at how to get it. Where that is known with every answer, there is nothing to try.
    async fn probe(&self) -> Result<()> {
        Ok(())
    }
}

/// Reading files, of running and stopped instances.
#[async_trait]
pub trait ReadFiles: Send + Sync {
    /// What stands at many paths, in one session. Links are reported, not followed; only regular files are
    /// opened. A guest cannot draw it out: it is a timeout after two minutes, and invalid where more than 100,000
    /// entries lie below a folder. Where looking would change something, because nobody has been in it yet, it is an error
    /// that [`super::is_untouched`] tells, but for whoever works under a lock.
    async fn inspect(&self, name: &InstanceName, query: &Query) -> Result<Inspection>;

    /// The first `max_bytes` bytes of a file, and whether there are more.
    async fn read(&self, name: &InstanceName, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)>;

    /// What lies in a folder, or, when `recursive`, anywhere below it, ordered by path: everything, whatever it is
    /// called. The folder may be [`GuestPath::root`].
    async fn list_files(&self, name: &InstanceName, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>>;
}

/// Reading outbound network policy.
#[async_trait]
pub trait ReadPolicy: Observe {
    /// The policy in force; none where nothing is closed.
    async fn get_policy(&self, name: &InstanceName) -> Result<Option<LivePolicy>> {
        match one(self, name).await?.egress {
            None => Ok(self.look_inside(name).await?.policy),
            outside => Ok(outside),
        }
    }

    /// What is in force inside a guest: by a policy that is enforced there, or by what others have left there. No
    /// observation has it. One session, and where it runs a command in it that only reads. Nothing where a backend puts
    /// nothing there.
    async fn look_inside(&self, _name: &InstanceName) -> Result<LookInside> {
        Ok(LookInside::default())
    }
}

/// One instance as a plan needs it.
async fn one<T: Observe + ?Sized>(observe: &T, name: &InstanceName) -> Result<LiveInstance> {
    let scope = Scope {
        environment: None,
        names: BTreeSet::from([name.clone()]),
    };
    let found = observe.observe(&scope).await?;
    let mut of_name = found.into_iter().filter(|instance| instance.name == *name);
    of_name
        .next()
        .ok_or_else(|| Error::not_found(format!("there is no instance `{name}`")))
}

/// Reading what is kept of an environment itself: notes, each of a key.
#[async_trait]
pub trait ReadNotes: Send + Sync {
    /// A note; none where nobody has made it. One request.
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>>;

    /// The notes of a key, of every environment that has one. One request; none of a backend that mounts nothing of this
    /// machine, for nobody asks there.
    async fn notes(&self, _key: NoteKey) -> Result<BTreeMap<EnvironmentName, Note>> {
        Ok(BTreeMap::new())
    }
}

/// Life and death of instances.
#[async_trait]
pub trait Backend: Observe {
    /// Makes an instance from an image. It does not run yet when [`CreateOpts::bare`].
    async fn create(&self, opts: &CreateOpts) -> Result<()>;

    /// Makes an instance with the disk of another: of its snapshot `label`, or as it is now.
    async fn clone_from(&self, source: &InstanceName, label: Option<&str>, opts: &CreateOpts) -> Result<()>;

    /// Changes settings and labels, unless somebody else changed them in between.
    async fn configure(&self, name: &InstanceName, changes: &Changes) -> Result<()>;

    /// Puts labels in the place of all that it has, where those are `seen`; a conflict where they are not. Nothing else
    /// of it changes.
    async fn relabel(&self, name: &InstanceName, _seen: &Labels, _labels: &Labels) -> Result<()> {
        Err(Error::unsupported(format!(
            "`{name}` cannot be adopted: this backend has nothing but what sbx-apply made"
        )))
    }

    /// Attaches mounts, volumes and ports, and takes some away; all or nothing of it where the backend can. What hands
    /// have attached is left alone. A source is looked at again: one that has become a link, or something else than a
    /// folder or a file, is invalid. A port that somebody has is already-exists. A volume that is there is attached with
    /// its data; it survives its instance.
    async fn attach(&self, name: &InstanceName, _changes: &Attach) -> Result<()> {
        Err(Error::unsupported(format!("nothing can be attached to `{name}` here")))
    }

    /// Deletes a volume with all that is in it; no error when there is none.
    async fn delete_volume(&self, key: &VolumeKey) -> Result<()> {
        Err(Error::unsupported(format!(
            "no volume `{}`: there are none here",
            key.name
        )))
    }

    /// Starts it; no error when it runs.
    async fn start(&self, name: &InstanceName) -> Result<()>;

    /// Stops it; no error when it does not run.
    async fn stop(&self, name: &InstanceName, how: Stop) -> Result<()>;

    /// Deletes it with its snapshots; ends it first when it runs.
    async fn delete(&self, name: &InstanceName) -> Result<()>;

    /// Takes a snapshot of its disk. It keeps the instance's labels of this moment.
    async fn create_snapshot(&self, name: &InstanceName, label: &str) -> Result<()>;

    /// Deletes a snapshot.
    async fn delete_snapshot(&self, name: &InstanceName, label: &str) -> Result<()>;

    /// Puts the disk back to a snapshot; a running instance is stopped for it and started again.
    async fn restore_snapshot(&self, name: &InstanceName, label: &str) -> Result<()>;

    /// Waits until what is under way on the instances in the scope has ended, even if a process began it that is
    /// dead by now: makings, copies, snapshots, changes of power, deletions. Whether any of it worked does not
    /// matter. Commands in there whose callers are gone are ended; those of others are left alone. Nothing to wait for where operations end with the process that began them.
    async fn settle(&self, _scope: &Scope) -> Result<()> {
        Ok(())
    }

    /// Lets go of connections.
    async fn close(&self) -> Result<()>;
}

/// Commands inside a running instance.
#[async_trait]
pub trait Exec: Send + Sync {
    /// Runs a command with streams, to its end. Gives its exit code, 128 + N after signal N.
    async fn run(&self, name: &InstanceName, opts: &ExecOpts, streams: Streams<'_>) -> Result<i32>;

    /// Runs a command and gives what it said: of each stream the first [`Output::KEPT`] bytes.
    async fn output(&self, name: &InstanceName, opts: &ExecOpts) -> Result<Output> {
        let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
        let streams = Streams {
            stdin: None,
            stdout: Some(Box::new(&mut stdout)),
            stderr: Some(Box::new(&mut stderr)),
            until: None,
        };
        let code = self.run(name, opts, streams).await?;
        Ok(Output {
            code,
            stdout: stdout.0,
            stderr: stderr.0,
        })
    }

    /// An interactive session on the caller's terminal, whose size it follows. Gives its exit code, 128 + N after
    /// signal N.
    async fn console(&self, name: &InstanceName, _opts: &ConsoleOpts, _terminal: Terminal<'_>) -> Result<i32> {
        Err(Error::unsupported(format!(
            "no console on `{name}`: this backend has none yet"
        )))
    }

    /// Waits until commands can be run.
    async fn ready(&self, name: &InstanceName, timeout: Duration) -> Result<()>;
}

/// Changing files, of running and stopped instances.
#[async_trait]
pub trait Files: ReadFiles {
    /// Many changes, in their order, in one session. Gives, for each, whether something stood at its path
    /// before.
    async fn change_files(&self, name: &InstanceName, changes: &[FileChange]) -> Result<Vec<bool>>;

    /// One file; see [`FileChange::Write`].
    async fn write(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: Content,
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()> {
        self.change_files(
            name,
            &[FileChange::Write {
                path: path.clone(),
                content,
                mode,
                owner,
            }],
        )
        .await
        .map(drop)
    }

    /// One file from a stream, without holding it whole in memory.
    async fn write_stream(
        &self,
        name: &InstanceName,
        path: &GuestPath,
        content: &mut (dyn AsyncRead + Send + Unpin),
        mode: Mode,
        owner: Option<Owner>,
    ) -> Result<()>;

    /// Removes what stands at a path; see [`FileChange::Remove`]. Nothing there is not-found here.
    async fn delete_file(&self, name: &InstanceName, path: &GuestPath) -> Result<()>;
}

/// Changing outbound network policy.
#[async_trait]
pub trait NetworkPolicy: ReadPolicy {
    /// Puts a policy in force where it says, outside or inside the guest, or lifts the one that there is, in both places.
    /// Another instance of the same environment whose policy has the same key gets the same rules with it, but where it is
    /// enforced inside. When it fails, what was closed before is closed still. Inside a guest that runs, it waits until
    /// commands can be run.
    async fn set_policy(&self, name: &InstanceName, policy: Option<&PinnedPolicy>) -> Result<()>;

    /// Whether [`NetworkPolicy::learn`] can work here: an error that says why not.
    fn may_learn(&self) -> Result<()> {
        Err(Error::unsupported(
            "this backend cannot watch what a sandbox asks for".to_owned(),
        ))
    }

    /// Opens a running instance, and no other, to everything but this machine and link-local addresses while something
    /// is done, and gives what it asked for. Then the policy is as it was, and connections that were begun meanwhile
    /// are over. When this process dies within, the instance is closed again at once; what is left of the opening is
    /// drift, which [`NetworkPolicy::set_policy`] removes.
    async fn learn(&self, _name: &InstanceName, _during: Doing<'_>) -> Result<Learned> {
        self.may_learn()?;
        Ok(Learned::default())
    }

    /// Removes what instances have left that are no more: policies of the environment that nobody is under, as where one was
    /// deleted by hand, and disks, as where its deletion was broken off. Little to do where there is nothing.
    async fn tidy(&self, _environment: &EnvironmentName) -> Result<()> {
        Ok(())
    }

    /// Sets the mode: `unrestricted` lifts the policy, `none` closes all, `agent` opens what the preset lists, and
    /// `allowlist` keeps what is open, which is nothing where there was no policy.
    async fn set_egress_mode(&self, name: &InstanceName, mode: EgressMode) -> Result<()> {
        if mode == EgressMode::Unrestricted {
            return self.set_policy(name, None).await;
        }
        let mut policy = policy_of(self, name).await?;
        if mode == EgressMode::None {
            policy.open.clear();
            policy.addresses.clear();
        }
        if mode == EgressMode::Agent {
            for opening in agent_preset().iter().flat_map(|entry| &entry.open) {
                // What does not resolve stays closed: nobody asked for it by its name.
                open(&mut policy, opening).await.ok();
            }
        }
        self.set_policy(name, Some(&policy)).await
    }

    /// Opens a domain: all ports, TCP and UDP.
    async fn allow_domain(&self, name: &InstanceName, domain: &str) -> Result<()> {
        let mut policy = policy_of(self, name).await?;
        let opening = Opening {
            to: Destination::Domain(domain.to_owned()),
            ports: None,
            protocol: None,
        };
        open(&mut policy, &opening).await?;
        self.set_policy(name, Some(&policy)).await
    }

    /// Closes a domain, whatever ports of it are open. Not-found where none is.
    async fn deny_domain(&self, name: &InstanceName, domain: &str) -> Result<()> {
        let mut policy = policy_of(self, name).await?;
        let count = policy.open.len();
        policy
            .open
            .retain(|opening| opening.to != Destination::Domain(domain.to_owned()));
        if policy.open.len() == count {
            return Err(Error::not_found(format!("`{domain}` is not open on `{name}`")));
        }
        policy.addresses.remove(domain);
        self.set_policy(name, Some(&policy)).await
    }
}

/// Something that is done meanwhile.
pub type Doing<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The policy of an instance: that in force, or one of its own that closes everything.
async fn policy_of<T: ReadPolicy + ?Sized>(observe: &T, name: &InstanceName) -> Result<PinnedPolicy> {
    if let Some(found) = observe.get_policy(name).await? {
        return Ok(found.policy);
    }
    let instance = one(observe, name).await?;
    let Ownership::Owned { environment, sandbox } = instance.labels.ownership(name) else {
        return Err(Error::unsupported(format!(
            "no egress policy on `{name}`: no environment owns it"
        )));
    };
    Ok(PinnedPolicy {
        key: PolicyKey::of(&environment, &sandbox, None),
        enforce: observe.capabilities().enforcement(),
        open: BTreeSet::new(),
        addresses: BTreeMap::new(),
    })
}

/// Opens a destination, its addresses pinned.
async fn open(policy: &mut PinnedPolicy, opening: &Opening) -> Result<()> {
    if let Destination::Domain(name) = &opening.to {
        let addresses = resolve(name)
            .await
            .map_err(|why| Error::new(ErrorKind::Invalid, format!("`{name}` does not resolve: {why}")))?;
        policy.addresses.insert(name.clone(), addresses);
    }
    policy.open.insert(opening.clone());
    Ok(())
}

/// Keeping notes on an environment, which may have no instances. Notes of different environments or keys have nothing
/// to do with each other. Where something stands in the place of a note that is not ours, every call is refused, and
/// the thing is left alone. A change whose answer is lost may have happened, as everywhere: read the note to know.
#[async_trait]
pub trait KeepNotes: ReadNotes {
    /// Makes a note; already-exists where there is one of that key. Of many at once, exactly one succeeds: that is
    /// what makes a lock of it. One request.
    async fn create_note(&self, environment: &EnvironmentName, key: NoteKey, note: &Note) -> Result<()>;

    /// Puts `new` in the place of `old`; a conflict where the note is no longer `old`, not-found where there is none.
    /// For whoever made `old`: of two who replace the same note at the same moment, both may be told that they did.
    async fn replace_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()>;

    /// Puts `new` in the place of `old`, which somebody else made; the same errors. Of many at once that name the
    /// same `old`, at most one succeeds, for more requests. Between the two there may be none for a moment, and there
    /// is none afterwards where the process died in it.
    async fn take_over_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note, new: &Note) -> Result<()>;

    /// Deletes `old`, and nothing that has taken its place; the same errors.
    async fn delete_note(&self, environment: &EnvironmentName, key: NoteKey, old: &Note) -> Result<()>;

    /// Deletes all notes of an environment, whatever they are, the lock last. For whoever holds that.
    async fn delete_notes(&self, environment: &EnvironmentName) -> Result<()>;
}

/// All that can be read. What plan is handed. Nothing leads from it to what can change:
///
/// ```
/// # use sbx_apply::{backend::Reader, model::InstanceName};
/// async fn looks(reader: &dyn Reader, name: &InstanceName) {
///     reader.get(name).await.ok();
/// }
/// ```
///
/// ```compile_fail,E0599
/// # use sbx_apply::{backend::{Backend, Reader}, model::InstanceName};
/// async fn starts(reader: &dyn Reader, name: &InstanceName) {
///     reader.start(name).await.ok();
/// }
/// ```
pub trait Reader: Observe + ReadFiles + ReadPolicy + ReadNotes {}

impl<T: Observe + ReadFiles + ReadPolicy + ReadNotes + ?Sized> Reader for T {}

/// All that can be done: the `Sandbox` of the contract.
pub trait Sandboxes: Reader + Backend + Exec + Files + NetworkPolicy + KeepNotes {}

impl<T: Reader + Backend + Exec + Files + NetworkPolicy + KeepNotes + ?Sized> Sandboxes for T {}
