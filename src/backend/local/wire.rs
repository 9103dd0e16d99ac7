//! What the two sides say to each other, over one socket: frames of a length and JSON, or of a length and bytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::ids::Ids;
use crate::backend::{Error, ErrorKind};

/// The longest frame: a request with many paths is long, but not this long.
pub(super) const LONGEST: usize = 256 << 20;

/// What a helper is asked to do: its first frame.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a sandbox. Answered by [`Reply::Done`], when its pid 1 runs and is recorded.
    Start(Start),
    /// Run a command. Answered by [`Reply::Code`] at its end.
    Exec(Exec),
    /// Serve files, until the socket closes: each [`FileRequest`] has its answer.
    Files(View),
    /// Copy a layer that is in use or remove layers. Answered by [`Reply::Done`].
    Disk(Ids, Disk),
    /// Unpack archives. Answered by [`Reply::Done`].
    Unpack(Ids, Unpack),
    /// Open ports of this machine that lead into a running sandbox. Answered by [`Reply::Done`], when what forwards them runs
    /// and is recorded.
    Ports(Ports),
    /// Give a descriptor of this program's file that nobody can write through. Answered by [`Reply::Ready`] and that.
    Program,
    /// Try whether sandboxes can be made at all. Answered by [`Reply::Done`].
    Probe(Ids),
}

/// A helper's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// It is done.
    Done,
    /// How a command ended.
    Code(i32),
    /// Whether something stood at the path that was changed.
    There(bool),
    /// What stands at some paths; as many bytes as the entries say follow, in one frame.
    Found(Vec<Entry>),
    /// The beginning of a file, in the next frame, and whether there is more.
    Read {
        /// Whether there is more.
        truncated: bool,
    },
    /// Go on: the helper is where it was asked to go.
    Ready,
    /// It went wrong.
    Failed {
        /// The kind of failure.
        kind: Kind,
        /// What went wrong.
        message: String,
    },
}

/// [`ErrorKind`], as far as helpers tell it apart.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Kind {
    NotFound,
    Invalid,
    Unsupported,
    Busy,
    Failed,
}

impl Reply {
    /// The failure that it tells, as an error.
    pub(super) fn error(kind: Kind, message: String) -> Error {
        let kind = match kind {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Invalid => ErrorKind::Invalid,
            Kind::Unsupported => ErrorKind::Unsupported,
            Kind::Busy => ErrorKind::Busy,
            Kind::Failed => ErrorKind::Failed,
        };
        Error::new(kind, message)
    }
}

/// The mounts of a sandbox's disk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Tree {
    /// An empty folder to put the disk at; and beside it, `low`, with one for each idmapped lower folder.
    pub(super) at: PathBuf,
    /// The overlays, the root first.
    pub(super) parts: Vec<Part>,
}

/// One overlay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Part {
    /// Where in the sandbox, without a leading `/`: empty for the root.
    pub(super) at: String,
    /// Lower folders, uppermost first.
    pub(super) lowers: Vec<Lower>,
    /// The folder that takes changes, and one for the kernel's own use; a view to read where there is none.
    pub(super) upper: Option<(PathBuf, PathBuf)>,
}

/// A lower folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Lower {
    pub(super) path: PathBuf,
    /// Whether its owners are this machine's, and have to be shifted by the mount.
    pub(super) shifted: bool,
}

/// The control groups of a sandbox, as their folders.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Membership {
    /// Of version 2: one at most.
    pub(super) unified: Option<PathBuf>,
    /// Of version 1.
    pub(super) split: Vec<PathBuf>,
}

/// A sandbox to start.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) ids: Ids,
    pub(super) tree: Tree,
    /// The host name inside.
    pub(super) name: String,
    /// Where to record the process: [`super::running::Process`].
    pub(super) record: PathBuf,
    /// As in [`Exec`].
    pub(super) in_use: PathBuf,
    /// Control groups to join.
    pub(super) groups: Membership,
    /// Whether the tool will join its network namespace to others: it is sent [`Reply::Ready`] and a process of that
    /// namespace, and answers with a [`Join`].
    pub(super) network: bool,
    /// What is put into its tree, outer paths first.
    pub(super) binds: Vec<Bind>,
}

/// Something of this machine in a sandbox's tree.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Bind {
    /// A real path.
    pub(super) source: PathBuf,
    /// Where, in the sandbox.
    pub(super) at: String,
    pub(super) readonly: bool,
    /// Paths below it that stay read-only.
    pub(super) guarded: Vec<String>,
    /// Whether its owners are those of this machine, and are mapped where that can be done.
    pub(super) shifted: bool,
}

/// How a sandbox's network namespace was joined to others.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Join {
    /// It is.
    Done,
    /// It is, but for this device, which is to be put up from inside.
    Device(super::network::Device),
    /// It could not be, so there is to be no sandbox.
    Failed,
}

/// A command to run in a running sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Exec {
    pub(super) ids: Ids,
    pub(super) process: super::running::Process,
    /// A file to hold a lock on until everything of the sandbox is let go of.
    pub(super) in_use: PathBuf,
    pub(super) groups: Membership,
    pub(super) command: Vec<String>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Where it starts; `/` where that is no folder.
    pub(super) folder: String,
    /// Whether a descriptor for its standard input comes with the request.
    pub(super) stdin: bool,
    /// A terminal of so many columns and rows instead of streams; its descriptor comes with [`Reply::Ready`].
    pub(super) terminal: Option<(u16, u16)>,
}

/// Ports to open.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) ids: Ids,
    /// The sandbox's first.
    pub(super) process: super::running::Process,
    /// As in [`Exec`].
    pub(super) in_use: PathBuf,
    pub(super) groups: Membership,
    /// Where to record what forwards them: [`super::ports::Forwarder`].
    pub(super) record: PathBuf,
    /// The port of this machine that leads to each of the sandbox.
    pub(super) ports: BTreeMap<String, u16>,
}

/// Where files are.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct View {
    pub(super) ids: Ids,
    /// As in [`Exec`].
    pub(super) in_use: PathBuf,
    pub(super) disk: Where,
}

/// A disk in use, or one that has to be mounted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Where {
    Running(super::running::Process),
    Stopped(Tree),
}

/// A change of layers that needs the sandbox's ids.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Disk {
    /// Copy a folder with everything that overlays keep in it.
    Copy { from: PathBuf, to: PathBuf },
    /// Remove folders with all that they hold.
    Remove(Vec<PathBuf>),
}

/// An archive to unpack.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Unpack {
    /// Archives, the lowest first.
    pub(super) archives: Vec<PathBuf>,
    /// Whether they are layers, which may remove what is below.
    pub(super) layers: bool,
    /// A folder that is there and empty.
    pub(super) to: PathBuf,
    /// More bytes than this are refused.
    pub(super) most_bytes: u64,
    /// More entries than this are refused.
    pub(super) most_entries: u64,
}

/// What is asked of files.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FileRequest {
    Inspect {
        paths: Vec<String>,
        opaque: Vec<String>,
        below: Vec<String>,
        bound: u64,
    },
    Read {
        path: String,
        most: u64,
    },
    List {
        path: String,
        recursive: bool,
    },
    /// Blocks of bytes follow, each in a frame, then an empty one, then one of a single byte: 1 to put the file in
    /// place, 0 to forget it.
    Write {
        path: String,
        mode: u32,
        owner: Option<(u32, u32)>,
    },
    Directory {
        path: String,
        mode: u32,
        owner: (u32, u32),
    },
    Symlink {
        path: String,
        target: String,
        owner: (u32, u32),
    },
    Attributes {
        path: String,
        mode: u32,
        owner: (u32, u32),
    },
    Remove {
        path: String,
    },
}

/// What stands at a path.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: String,
    pub(super) shape: EntryShape,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
}

/// Its kind.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum EntryShape {
    File {
        digest: Option<crate::model::Digest>,
        /// How many bytes of content come along.
        content: Option<u64>,
    },
    Directory,
    Symlink(String),
    Special,
}
