//! The folder, and reading and writing records.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Lock, Record};
use crate::backend::local::ids::Ids;
use crate::backend::local::running::Process;
use crate::backend::{Error, ErrorKind, Result, strict};
use crate::model::{InstanceName, Status};

/// The state folder.
#[derive(Debug, Clone)]
pub(in crate::backend::local) struct Store {
    root: PathBuf,
}

/// A failure of this machine.
pub(in crate::backend::local) fn failed(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
    let source = source.into();
    let kind = match source.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Unauthorised,
        _ => ErrorKind::Failed,
    };
    Error::new(kind, what).with_source(source)
}

const FOLDERS: [&str; 6] = ["locks", "sandboxes", "layers", "images", "notes", "trash"];
const FORM: &str = "state.json";

impl Store {
    /// Whose sandboxes a folder holds, where it holds any.
    pub(in crate::backend::local) fn ids(root: &Path) -> Result<Option<Ids>> {
        match fs::symlink_metadata(root) {
            Ok(metadata) if metadata.is_dir() => read(&root.join(FORM)),
            _ => Ok(None),
        }
    }

    /// The store in a folder. Makes nothing: a folder that is not there holds no sandboxes.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a folder that is somebody else's, open to others, or no store of ours.
    pub(in crate::backend::local) fn at(root: PathBuf, ids: Ids) -> Result<Self> {
        let store = Self { root };
        let refused = |why: &str| {
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{} cannot hold sandboxes: {why}", store.root.display()),
            )
            .with_hint("name another folder with the setting `state`, or `SBX_LOCAL_STATE`"))
        };
        let metadata = match fs::symlink_metadata(&store.root) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(store),
            Err(error) => return Err(failed(format!("cannot look at {}", store.root.display()), error)),
        };
        if !metadata.is_dir() {
            return refused("it is no folder");
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return refused("it belongs to another user");
        }
        if metadata.mode() & 0o077 != 0 {
            return refused("others can enter it").map_err(|error: Error| {
                error.with_hint(format!(
                    "where it is yours alone: `chmod 700 {}`; or name another folder, with `SBX_LOCAL_STATE`",
                    store.root.display()
                ))
            });
        }
        match read::<Ids>(&store.root.join(FORM))? {
            Some(found) if found == ids => Ok(store),
            Some(_) => refused("its layers belong to other users than sandboxes would have now"),
            None => match store.is_half_made() {
                true => Ok(store),
                false => refused("there is something else in it"),
            },
        }
    }

    /// Whether nothing stands in it but what [`Self::make`] makes first.
    fn is_half_made(&self) -> bool {
        let ours = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok().and_then(|entry| entry.file_name().into_string().ok());
            name.is_some_and(|name| FOLDERS.contains(&name.as_str()) || name.starts_with(".new"))
        };
        fs::read_dir(&self.root).is_ok_and(|mut entries| entries.all(ours))
    }

    /// Makes what is missing.
    pub(in crate::backend::local) fn make(&self, ids: Ids) -> Result<()> {
        if self.root.join(FORM).exists() {
            return Ok(());
        }
        let make = || -> io::Result<()> {
            private().recursive(true).create(&self.root)?;
            FOLDERS
                .iter()
                .try_for_each(|folder| private().recursive(true).create(self.root.join(folder)))?;
            // It says that all of the others are there.
            write(&self.root.join(FORM), &ids)
        };
        make().map_err(|source| failed(format!("cannot make {}", self.root.display()), source))
    }

    /// The folder itself.
    pub(in crate::backend::local) fn root(&self) -> &Path {
        &self.root
    }

    pub(in crate::backend::local) fn layer(&self, id: &str) -> PathBuf {
        self.root.join("layers").join(id)
    }

    pub(in crate::backend::local) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(in crate::backend::local) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(in crate::backend::local) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// The folder of a sandbox. A name that none could have leads nowhere.
    pub(in crate::backend::local) fn sandbox(&self, name: &InstanceName) -> Result<PathBuf> {
        match strict::instance_name(name.as_str()) {
            Ok(()) => Ok(self.root.join("sandboxes").join(name.as_str())),
            Err(_) => Err(no_instance(name)),
        }
    }

    /// The lock of a sandbox.
    pub(in crate::backend::local) fn lock(&self, name: &InstanceName) -> PathBuf {
        self.root.join("locks").join(name.as_str())
    }

    /// The lock of all names of layers.
    pub(in crate::backend::local) fn names(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Where the process of a sandbox is recorded.
    pub(in crate::backend::local) fn run(&self, name: &InstanceName) -> Result<PathBuf> {
        Ok(self.sandbox(name)?.join("run.json"))
    }

    /// Where that stands from the moment on when somebody begins to stop it.
    pub(in crate::backend::local) fn ending(&self, name: &InstanceName) -> Result<PathBuf> {
        Ok(self.sandbox(name)?.join("ending.json"))
    }

    /// The process of a sandbox, where it runs.
    pub(in crate::backend::local) fn process(&self, name: &InstanceName) -> Option<Process> {
        Process::read(&self.run(name).ok()?)
    }

    /// Whether it runs.
    pub(in crate::backend::local) fn status(&self, name: &InstanceName) -> Status {
        match self.process(name) {
            // Whoever holds it still has it locked: where nobody has, they were killed.
            Some(_) if self.stands_still(name) && Lock::is_free(&self.lock(name)) => Status::Frozen,
            Some(_) => Status::Running,
            None => Status::Stopped,
        }
    }

    /// Where it stands that a sandbox is held still.
    fn still(&self, name: &InstanceName) -> Result<PathBuf> {
        Ok(self.sandbox(name)?.join("still"))
    }

    /// Notes that somebody is about to hold a sandbox still.
    pub(in crate::backend::local) fn note_still(&self, name: &InstanceName) -> Result<()> {
        fs::write(self.still(name)?, "").map_err(|source| failed(format!("cannot hold `{name}` still"), source))
    }

    /// Whether somebody holds a sandbox still, or did when they were killed.
    pub(in crate::backend::local) fn stands_still(&self, name: &InstanceName) -> bool {
        self.still(name).is_ok_and(|file| file.exists())
    }

    /// Takes the note away.
    pub(in crate::backend::local) fn forget_still(&self, name: &InstanceName) -> Result<()> {
        match fs::remove_file(self.still(name)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed(format!("cannot let `{name}` go on"), error))
            }
            _ => Ok(()),
        }
    }

    /// What is known of a sandbox.
    ///
    /// # Errors
    /// Not-found where there is none.
    pub(in crate::backend::local) fn record(&self, name: &InstanceName) -> Result<Record> {
        read(&self.sandbox(name)?.join("record.json"))?.ok_or_else(|| no_instance(name))
    }

    /// Keeps what is known of a sandbox that is there.
    pub(in crate::backend::local) fn keep(&self, name: &InstanceName, record: &Record) -> Result<()> {
        let path = self.sandbox(name)?.join("record.json");
        write(&path, record).map_err(|source| failed(format!("cannot write {}", path.display()), source))
    }

    /// A new sandbox's folder, with its record: all of it or nothing.
    pub(in crate::backend::local) fn add(&self, name: &InstanceName, record: &Record) -> Result<()> {
        let place = self.sandbox(name)?;
        let half = self.root.join("sandboxes").join(format!(".{}", record.upper));
        let add = || -> io::Result<()> {
            private().create(&half)?;
            private().create(half.join("root"))?;
            private().create(half.join("low"))?;
            write(&half.join("record.json"), record)?;
            fs::rename(&half, &place)?;
            sync(&self.root.join("sandboxes"))
        };
        add().map_err(|source| failed(format!("cannot record `{name}`"), source))
    }

    /// The names of all sandboxes, ordered.
    pub(in crate::backend::local) fn all(&self) -> Result<Vec<InstanceName>> {
        let folder = self.root.join("sandboxes");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(format!("cannot read {}", folder.display()), error)),
        };
        let mut names: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| strict::instance_name(name).is_ok())
            .map(InstanceName::observed)
            .collect();
        names.sort();
        Ok(names)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(format!("cannot read {}", path.display()), error)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| {
        let place = path.parent().unwrap_or(path).display();
        failed(format!("{} is damaged", path.display()), source).with_hint(format!(
            "put it back from a copy, or move {place} away: then the sandbox is no more, and its files are still in the layers"
        ))
    })
}

/// Nothing of that name.
pub(in crate::backend::local) fn no_instance(name: &InstanceName) -> Error {
    Error::not_found(format!("there is no instance `{name}`"))
}

/// Folders for nobody else.
pub(in crate::backend::local) fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}

/// Writes a file as JSON: the whole of it or nothing, and for good before it returns.
pub(in crate::backend::local) fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(folder)?;
    serde_json::to_writer(&mut file, value)?;
    file.flush()?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    sync(folder)
}

/// Makes the names in a folder last.
pub(in crate::backend::local) fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
