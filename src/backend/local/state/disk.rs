//! Layers: making them, and removing those that nobody names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Lock, Record, Store, failed, private};
use crate::backend::Result;
use crate::backend::local::helper::Helpers;
use crate::backend::local::ids::Ids;
use crate::backend::local::image::Parts;
use crate::backend::local::wire::{Disk, Part, Request, Tree};
use crate::model::InstanceName;

impl Store {
    /// A new, empty layer for an image.
    pub(in crate::backend::local) fn new_layer(&self, ids: Ids, parts: &Parts) -> Result<String> {
        let id = id().map_err(|source| failed("cannot name a layer", source))?;
        let layer = self.layer(&id);
        let make = || -> io::Result<()> {
            private().create(&layer)?;
            private().create(layer.join("up"))?;
            private().create(layer.join("work"))?;
            let (uid, gid) = ids.outside(0, 0);
            for part in &parts.0 {
                let folder = folder_of(&part.at);
                let upper = layer.join("up").join(&folder);
                fs::DirBuilder::new().mode(0o755).create(&upper)?;
                // Whatever umask the tool was started with.
                fs::set_permissions(&upper, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
                private().create(layer.join("work").join(&folder))?;
                if ids.is_root() {
                    chown(&upper, Some(uid), Some(gid))?;
                }
            }
            Ok(())
        };
        make().map_err(|source| failed(format!("cannot make {}", layer.display()), source))?;
        Ok(id)
    }

    /// The mounts of a sandbox's disk, to change it or to read it only.
    pub(in crate::backend::local) fn tree(
        &self,
        name: &InstanceName,
        record: &Record,
        parts: &Parts,
        writes: bool,
    ) -> Result<Tree> {
        let sandbox = self.sandbox(name)?;
        let up = |id: &str, part: &Part| self.layer(id).join("up").join(folder_of(&part.at));
        let parts = parts.0.iter().map(|image| {
            let mut part = image.clone();
            let mut layers: Vec<PathBuf> = record.layers.iter().map(|id| up(id, image)).collect();
            match writes {
                true => {
                    let work = self.layer(&record.upper).join("work").join(folder_of(&part.at));
                    part.upper = Some((up(&record.upper, image), work));
                }
                false => layers.insert(0, up(&record.upper, image)),
            }
            let own = layers
                .into_iter()
                .map(|path| crate::backend::local::wire::Lower { path, shifted: false });
            let etc = super::super::etc::lower(&sandbox, &part.at);
            part.lowers = own.chain(etc).chain(std::mem::take(&mut part.lowers)).collect();
            part
        });
        Ok(Tree {
            at: sandbox.join("root"),
            parts: parts.collect(),
        })
    }

    /// Removes the layers that no record names any more, and unpacked images that nothing has been made of for a day. To be called
    /// when something has lost a layer; what is left over from an interrupted call goes as well.
    pub(in crate::backend::local) async fn sweep(&self, ids: Ids, helpers: &Helpers) -> Result<()> {
        let names = Lock::take(&self.names(), true, "the layers").await?;
        let (mut named, mut images) = (BTreeSet::new(), BTreeSet::new());
        for name in self.all()? {
            match self.record(&name) {
                Ok(record) => {
                    named.extend(record.named().map(str::to_owned));
                    images.extend(record.unpacked().map(str::to_owned));
                }
                Err(error) if error.kind() == crate::backend::ErrorKind::NotFound => {}
                // It might name any of them, so all stay.
                Err(error) => {
                    tracing::warn!("layers that nobody needs are not removed: {error}");
                    drop(names);
                    return self.empty_trash(ids, helpers).await;
                }
            }
        }
        // Whoever adds a sandbox has the lock, so these are nobody's: their makers were killed.
        let sandboxes = self.root().join("sandboxes");
        for half in entries(&sandboxes)?.iter().filter(|name| name.starts_with('.')) {
            self.discard(&sandboxes.join(half))?;
        }
        for id in entries(&self.layers())? {
            if !named.contains(&id) {
                self.discard(&self.layer(&id))?;
            }
        }
        for key in entries(&self.images())? {
            let place = self.images().join(&key);
            if key.starts_with(UNPACKED) && !images.contains(&key) && is_idle(&place) {
                self.discard(&place)?;
            }
        }
        drop(names);
        self.empty_trash(ids, helpers).await
    }

    /// Takes a folder away, at once; what it holds is removed with the next [`Self::empty_trash`].
    pub(in crate::backend::local) fn discard(&self, folder: &Path) -> Result<()> {
        let cannot = |source| failed(format!("cannot take {} away", folder.display()), source);
        let trash = self.trash().join(id().map_err(cannot)?);
        match fs::rename(folder, trash) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot(error)),
            _ => Ok(()),
        }
    }

    /// Removes what was taken away.
    pub(in crate::backend::local) async fn empty_trash(&self, ids: Ids, helpers: &Helpers) -> Result<()> {
        let trash = self.trash();
        let folders: Vec<PathBuf> = entries(&trash)?.into_iter().map(|name| trash.join(name)).collect();
        if folders.is_empty() {
            return Ok(());
        }
        // Somebody who empties it as well takes nothing from us: what is gone is gone.
        helpers.perform(&Request::Disk(ids, Disk::Remove(folders))).await
    }
}

/// What names of unpacked images begin with.
pub(in crate::backend::local) const UNPACKED: &str = "sha256-";
/// Those that have been of use within this time are kept: what is deleted is often made anew.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// Whether nobody has used an image for long. One of the future has been used.
fn is_idle(place: &Path) -> bool {
    let used = fs::metadata(place).and_then(|found| found.modified());
    used.is_ok_and(|used| used.elapsed().is_ok_and(|age| age > KEPT))
}

/// The names in a folder.
pub(in crate::backend::local) fn entries(folder: &Path) -> Result<Vec<String>> {
    let read = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    read().map_err(|source| failed(format!("cannot read {}", folder.display()), source))
}

/// A part's folder in a layer: no two overlays may share one.
pub(in crate::backend::local) fn folder_of(part: &str) -> String {
    match part {
        "" => "root".to_owned(),
        part => part.replace('/', "+"),
    }
}

/// A name that nobody has used.
pub(in crate::backend::local) fn id() -> io::Result<String> {
    let mut bytes = [0; 12];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
