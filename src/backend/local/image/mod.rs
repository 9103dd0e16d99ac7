//! What disks are made from.

mod archive;
mod host;
mod mask;
mod oci;

use std::path::PathBuf;

pub(super) use host::{MASK, file, folder, mask_of};

use super::Local;
use super::state::Image;
use super::wire::{Lower, Part};
use crate::backend::{Error, ErrorKind, Result};

/// The overlays of an image, without any layer of a sandbox: the root first.
#[derive(Debug, Clone)]
pub(super) struct Parts(pub(super) Vec<Part>);

/// Where an image is.
#[derive(Debug)]
pub(super) enum Located {
    /// This machine itself.
    Host,
    /// A root file system.
    Folder(PathBuf),
    /// An archive.
    File(PathBuf),
    /// An OCI layout.
    Layout(PathBuf),
}

/// The name of the image that is this machine itself.
const HOST: &str = "host";

impl Local {
    /// The image of that name, as a spec writes it. Whatever it takes is made: an archive is unpacked.
    pub(super) async fn image(&self, name: &str) -> Result<Image> {
        match self.locate(name)? {
            Located::Host => Ok(Image::Host),
            Located::Folder(path) => Ok(Image::Folder(path)),
            Located::File(path) => self.unpacked_file(&path).await,
            Located::Layout(path) => self.unpacked_layout(&path).await,
        }
    }

    /// Where an image is, without looking into it.
    ///
    /// # Errors
    /// Not-found where there is none of that name, invalid where what is there is none.
    pub(super) fn locate(&self, name: &str) -> Result<Located> {
        if name == HOST {
            return Ok(Located::Host);
        }
        let unknown = || {
            Error::not_found(format!("there is no image `{name}`"))
                .with_hint("local images are `host`, and folders and archives with a root file system, or OCI layouts")
        };
        // A spec is not trusted: it may name what lies beside it, and nothing else of this machine.
        let (folder, root) = self.images.as_ref().ok_or_else(unknown)?;
        let path = folder.join(name).canonicalize().map_err(|_| unknown())?;
        if !path.starts_with(root) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the image `{name}` lies outside the root folder"),
            )
            .with_hint("name a root folder that holds it: --root"));
        }
        if path.is_file() {
            return Ok(Located::File(path));
        }
        if oci::is_layout(&path) {
            return Ok(Located::Layout(path));
        }
        match path.join("etc").is_dir() || path.join("bin").is_dir() {
            true => Ok(Located::Folder(path)),
            false => Err(Error::new(
                ErrorKind::Invalid,
                format!("{} holds no root file system", path.display()),
            )
            .with_hint("a folder that is an image has `etc`, `bin` and so on in it")),
        }
    }

    /// The overlays of an image as it is now.
    pub(super) async fn parts(&self, image: &Image) -> Result<Parts> {
        match image {
            Image::Host => self.host_parts().await,
            // Were it a link by now, it could lead anywhere.
            Image::Folder(path) if path.canonicalize().is_ok_and(|real| real == *path) => {
                Ok(single(path.clone(), true))
            }
            Image::Folder(path) => Err(Error::not_found(format!("the image {} is gone", path.display()))),
            Image::Unpacked(key) => Ok(single(self.store.images().join(key).join("root"), false)),
        }
    }
}

fn single(path: PathBuf, shifted: bool) -> Parts {
    Parts(vec![Part {
        at: String::new(),
        lowers: vec![Lower { path, shifted }],
        upper: None,
    }])
}
