//! What disks are made from.

mod host;
mod mask;

use std::path::Path;

use super::Local;
use super::state::Image;
use super::wire::{Lower, Part};
use crate::backend::{Error, ErrorKind, Result};

/// The overlays of an image, without any layer of a sandbox: the root first.
#[derive(Debug, Clone)]
pub(super) struct Parts(pub(super) Vec<Part>);

/// The name of the image that is this machine itself.
const HOST: &str = "host";

impl Local {
    /// The image of that name, as a spec writes it. Whatever it takes is made: an archive is unpacked.
    pub(super) async fn find_image(&self, name: &str) -> Result<Image> {
        if name == HOST {
            return Ok(Image::Host);
        }
        let path = Path::new(name);
        let unknown = || {
            Error::not_found(format!("there is no image `{name}`"))
                .with_hint("local images are `host`, or a folder or an archive with a root file system")
        };
        let path = path.canonicalize().map_err(|_| unknown())?;
        if path.is_dir() {
            if !path.join("etc").is_dir() {
                return Err(Error::new(
                    ErrorKind::Invalid,
                    format!("{} holds no root file system", path.display()),
                )
                .with_hint("a folder that is an image has `etc`, `bin` and so on in it"));
            }
            return Ok(Image::Folder(path));
        }
        Err(unknown())
    }

    /// The overlays of an image as it is now.
    pub(super) async fn parts(&self, image: &Image) -> Result<Parts> {
        match image {
            Image::Host => self.host_parts().await,
            Image::Folder(path) => Ok(single(path.clone(), true)),
            Image::Unpacked(key) => Ok(single(self.store.images().join(key).join("root"), false)),
        }
    }
}

fn single(path: std::path::PathBuf, shifted: bool) -> Parts {
    Parts(vec![Part {
        at: String::new(),
        lowers: vec![Lower { path, shifted }],
        upper: None,
    }])
}
