//! Images in the layout of the Open Container Initiative (image specification 1.1, `image-layout.md`).

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::archive::{Source, digest};
use crate::backend::local::state::failed;
use crate::backend::{Error, ErrorKind, Result};

/// The file that makes a folder a layout.
const MARK: &str = "oci-layout";
/// Indexes in indexes.
const DEEPEST: usize = 4;
/// The longest index or manifest: 4 MiB, as registries have it.
const LONGEST: u64 = 4 << 20;
/// The largest archive that is taken apart: 32 GiB.
const LARGEST: u64 = 32 << 30;

#[derive(Debug, Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Clone, Deserialize)]
struct Descriptor {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

/// Whether a folder is a layout.
pub(super) fn is_layout(folder: &Path) -> bool {
    folder.join(MARK).is_file()
}

/// Whether a file is a layout in a tar archive, which is never compressed itself.
pub(super) fn is_archive(path: &Path) -> Result<bool> {
    let cannot = |source| failed(format!("cannot read {}", path.display()), source);
    let mut archive = tar::Archive::new(File::open(path).map_err(cannot)?);
    let Ok(entries) = archive.entries_with_seek() else {
        return Ok(false);
    };
    // Few stand in a layout before its mark, and many in a root file system.
    let mut first = entries.take(10_000).map_while(std::result::Result::ok);
    Ok(first.any(|entry| matches!(&*entry.path_bytes(), b"oci-layout" | b"./oci-layout")))
}

/// Takes an archive apart: the files of a layout, and nothing else that it may hold.
pub(super) fn apart(path: &Path, images: &Path) -> Result<tempfile::TempDir> {
    let take = || -> io::Result<tempfile::TempDir> {
        let folder = tempfile::Builder::new().prefix(".apart").tempdir_in(images)?;
        fs::create_dir_all(folder.path().join("blobs/sha256"))?;
        let mut archive = tar::Archive::new(File::open(path)?.take(LARGEST));
        for entry in archive.entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let name = name.strip_prefix("./").unwrap_or(&name);
            let wanted = matches!(name, MARK | "index.json") || name.strip_prefix("blobs/sha256/").is_some_and(is_hex);
            if wanted && entry.header().entry_type().is_file() {
                io::copy(&mut entry, &mut File::create(folder.path().join(name))?)?;
            }
        }
        Ok(folder)
    };
    take().map_err(|source| failed(format!("cannot read {}", path.display()), source))
}

/// The layers of a layout's image for this machine.
pub(super) fn source(folder: &Path) -> Result<Source> {
    let mut index: Index = json(&folder.join("index.json"))?;
    let mut chosen = None;
    for _ in 0..DEEPEST {
        if !index.layers.is_empty() {
            break;
        }
        let manifest = choose(&index.manifests)?;
        let blob = blob(folder, &manifest.digest)?;
        chosen = Some(digest(&blob)?);
        index = json(&blob)?;
    }
    let digest = chosen.filter(|_| !index.layers.is_empty());
    let digest = digest.ok_or_else(|| invalid("the image has no layers".to_owned()))?;
    let archives = index.layers.iter().map(|layer| blob(folder, &layer.digest));
    Ok(Source {
        digest,
        archives: archives.collect::<Result<_>>()?,
        layers: true,
        _apart: None,
    })
}

/// The one manifest, or the one for this machine.
fn choose(manifests: &[Descriptor]) -> Result<Descriptor> {
    let architecture = match () {
        () if cfg!(target_arch = "x86_64") => "amd64",
        () if cfg!(target_arch = "aarch64") => "arm64",
        () => "riscv64",
    };
    let fits = |manifest: &&Descriptor| {
        let platform = manifest.platform.as_ref();
        platform.is_some_and(|platform| platform.os == "linux" && platform.architecture == architecture)
    };
    let mut fitting: Vec<&Descriptor> = manifests.iter().filter(fits).collect();
    if fitting.is_empty() {
        fitting = manifests
            .iter()
            .filter(|manifest| manifest.platform.is_none())
            .collect();
    }
    match fitting[..] {
        [one] => Ok(one.clone()),
        [] => Err(invalid(format!("the layout has no image for linux/{architecture}"))),
        _ => Err(invalid("the layout has several images; keep one in it".to_owned())),
    }
}

/// The file of a blob, which holds what its name says.
fn blob(folder: &Path, name: &str) -> Result<PathBuf> {
    let hex = name.strip_prefix("sha256:").filter(|hex| is_hex(hex));
    let hex = hex.ok_or_else(|| invalid(format!("{name:?} is no digest that is known here")))?;
    let path = folder.join("blobs/sha256").join(hex);
    match digest(&path)?.as_str() == hex {
        true => Ok(path),
        false => Err(invalid(format!("the blob {name} holds something else"))),
    }
}

fn is_hex(text: &str) -> bool {
    text.len() == 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let cannot = |source| failed(format!("cannot read {}", path.display()), source);
    let mut text = Vec::new();
    let file = File::open(path).map_err(cannot)?;
    file.take(LONGEST).read_to_end(&mut text).map_err(cannot)?;
    serde_json::from_slice(&text)
        .map_err(|error| invalid(format!("{} is no index of images", path.display())).with_source(error))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}
