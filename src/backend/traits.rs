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

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncRead;

use super::kept::Kept;
use super::{
    Changes, ConsoleOpts, CreateOpts, Error, ExecOpts, FileChange, FileEntry, Output, Result, Scope, Stop, Streams,
    Terminal,
};
use crate::model::{
    Capabilities, Content, EgressMode, EnvironmentName, GuestPath, Inspection, Instance, InstanceName, Labels,
    LiveInstance, Mode, Note, NoteKey, Owner, Policy, Query, Snapshot,
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

    /// Whether an instance could be made from an image, as a spec writes it: an error that says what is missing
    /// where it could not. Where nobody can tell without trying, or not cheaply, it is no error. Incus: up to two
    /// requests; what lies on another server is not looked for there.
    async fn find_image(&self, _image: &str) -> Result<()> {
        Ok(())
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
    /// entries lie below a folder.
    async fn inspect(&self, name: &InstanceName, query: &Query) -> Result<Inspection>;

    /// The first `max_bytes` bytes of a file, and whether there are more.
    async fn read(&self, name: &InstanceName, path: &GuestPath, max_bytes: u64) -> Result<(Vec<u8>, bool)>;

    /// What lies in a folder, or, when `recursive`, anywhere below it, ordered by path: everything, whatever it is
    /// called. The folder may be [`GuestPath::root`].
    async fn list_files(&self, name: &InstanceName, path: &GuestPath, recursive: bool) -> Result<Vec<FileEntry>>;
}

/// Reading outbound network policy.
#[async_trait]
pub trait ReadPolicy: Send + Sync {
    /// The policy in force.
    async fn get_policy(&self, name: &InstanceName) -> Result<Policy>;
}

/// Reading what is kept of an environment itself: notes, each of a key.
#[async_trait]
pub trait ReadNotes: Send + Sync {
    /// A note; none where nobody has made it. One request.
    async fn note(&self, environment: &EnvironmentName, key: NoteKey) -> Result<Option<Note>>;
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
    /// Sets the mode.
    async fn set_egress_mode(&self, name: &InstanceName, mode: EgressMode) -> Result<()>;

    /// Allows a domain.
    async fn allow_domain(&self, name: &InstanceName, domain: &str) -> Result<()>;

    /// Takes a domain back.
    async fn deny_domain(&self, name: &InstanceName, domain: &str) -> Result<()>;
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
