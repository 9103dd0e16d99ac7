//! Images that have to be unpacked: once, by their digest.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::oci;
use crate::backend::local::Local;
use crate::backend::local::state::{Image, Lock, UNPACKED, entries, failed, id, private};
use crate::backend::local::wire::{Disk, Request, Unpack};
use crate::backend::{Error, ErrorKind, Result};
use crate::model::{Digest, Hasher};

/// A root file system larger than this is refused: 32 GiB, four million files.
const MOST_BYTES: u64 = 32 << 30;
const MOST_ENTRIES: u64 = 4_000_000;

/// What names begin with of images that are not whole yet.
const HALF: &str = ".half-";

/// What an image is unpacked from.
#[derive(Debug)]
pub(super) struct Source {
    /// Of all that it holds.
    pub(super) digest: Digest,
    /// Archives, the lowest first.
    pub(super) archives: Vec<PathBuf>,
    /// Whether they are layers, which may remove what is below.
    pub(super) layers: bool,
    /// Where an archive of archives was taken apart.
    pub(super) _apart: Option<tempfile::TempDir>,
}

impl Local {
    /// The image that a file holds: a root file system, or an OCI layout.
    pub(super) async fn unpacked_file(&self, path: &Path) -> Result<Image> {
        let (path, images) = (path.to_owned(), self.store.images());
        let look = move || {
            if oci::is_archive(&path)? {
                let apart = oci::apart(&path, &images)?;
                let mut source = oci::source(apart.path())?;
                source._apart = Some(apart);
                return Ok(source);
            }
            Ok(Source {
                digest: digest(&path)?,
                archives: vec![path],
                layers: false,
                _apart: None,
            })
        };
        self.unpacked(look).await
    }

    /// The image that a folder with an OCI layout holds.
    pub(super) async fn unpacked_layout(&self, path: &Path) -> Result<Image> {
        let path = path.to_owned();
        self.unpacked(move || oci::source(&path)).await
    }

    async fn unpacked(&self, look: impl FnOnce() -> Result<Source> + Send + 'static) -> Result<Image> {
        let source = tokio::task::spawn_blocking(look)
            .await
            .unwrap_or_else(|error| Err(failed("cannot read the image", io::Error::other(error))))?;
        let key = format!("{UNPACKED}{}", source.digest);
        let place = self.store.images().join(&key);
        if !place.is_dir() {
            // Another may unpack it at the same time.
            let _lock = Lock::take(&self.store.root().join("lock-images"), true, "the images").await?;
            if !place.is_dir() {
                self.unpack(&source, &place).await?;
            }
        }
        // It is of use, so that nobody removes it before there is a sandbox that says so.
        super::host::touch(&place).map_err(|error| failed("cannot use the image", error))?;
        Ok(Image::Unpacked(key))
    }

    async fn unpack(&self, source: &Source, place: &Path) -> Result<()> {
        let cannot = |error: io::Error| failed("cannot make a folder for the image", error);
        // Whoever unpacks has the lock, so these are nobody's: whoever began them was killed.
        for left in entries(&self.store.images())?
            .iter()
            .filter(|name| name.starts_with(HALF))
        {
            self.store.discard(&self.store.images().join(left))?;
        }
        self.store.empty_trash(self.ids, &self.helpers).await?;
        let half = self.store.images().join(format!("{HALF}{}", id().map_err(cannot)?));
        private().create(&half).map_err(cannot)?;
        super::host::folder(&half.join("root"), 0o755, self.ids).map_err(cannot)?;
        let unpack = Unpack {
            archives: source.archives.clone(),
            to: half.join("root"),
            layers: source.layers,
            most_bytes: MOST_BYTES,
            most_entries: MOST_ENTRIES,
        };
        let unpacked = self.helpers.perform(&Request::Unpack(self.ids, unpack)).await;
        let checked = unpacked.and_then(
            |()| match half.join("root/etc").is_dir() || half.join("root/bin").exists() {
                true => Ok(()),
                false => Err(Error::new(ErrorKind::Invalid, "the archive holds no root file system")),
            },
        );
        match checked {
            Ok(()) => fs::rename(&half, place).map_err(cannot),
            Err(error) => {
                // What was unpacked so far may be anything.
                let remove = Request::Disk(self.ids, Disk::Remove(vec![half]));
                let _ = self.helpers.perform(&remove).await;
                Err(error)
            }
        }
    }
}

/// The digest of a file.
pub(super) fn digest(path: &Path) -> Result<Digest> {
    let read = || -> io::Result<Digest> {
        let mut file = File::open(path)?;
        let mut hasher = Hasher::new();
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block)? {
                0 => return Ok(hasher.finish()),
                length => hasher.update(&block[..length]),
            }
        }
    };
    read().map_err(|source| failed(format!("cannot read {}", path.display()), source))
}
