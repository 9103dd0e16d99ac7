//! Whether this machine lets sandboxes be made at all: tried, in memory, and nothing left of it.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, chmodat};

use super::failure::{Result, Trying as _};
use super::start::OWN;
use super::{overlay, sys, users};
use crate::backend::local::ids::Ids;
use crate::backend::local::wire::{Lower, Part, Tree};

/// A folder that every machine has. What is mounted there is seen by this process alone.
const PLACE: &str = "/tmp";

/// Makes the namespaces of a sandbox and a disk over this machine's `/usr`, in this process, which ends then.
pub(super) fn probe(ids: Ids) -> Result<()> {
    let namespace = users::make(ids)?;
    if ids.is_root() {
        unshare(CloneFlags::CLONE_NEWNS).trying("cannot make a mount namespace")?;
        overlay::assemble(&disk(ids)?, Some(&namespace))?;
        users::enter(&namespace)?;
        unshare(OWN).trying("cannot make namespaces")?;
    } else {
        users::enter(&namespace)?;
        unshare(OWN).trying("cannot make namespaces")?;
        overlay::assemble(&disk(ids)?, None)?;
    }
    sys::loopback_up().trying("cannot use the loopback device")
}

fn disk(ids: Ids) -> Result<Tree> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).trying("cannot make mounts private")?;
    mount(Some("tmpfs"), PLACE, Some("tmpfs"), MsFlags::empty(), None::<&str>).trying("cannot mount anything")?;
    let place = Path::new(PLACE);
    for folder in ["root", "low", "image", "upper", "work"] {
        fs::create_dir(place.join(folder)).trying("cannot make a folder")?;
    }
    if ids.is_root() {
        let (uid, gid) = ids.outside(0, 0);
        std::os::unix::fs::chown(place.join("upper"), Some(uid), Some(gid)).trying("cannot give a folder away")?;
    }
    chmodat(CWD, place, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty()).trying("cannot open a folder")?;
    let lower = |path: &str, shifted| Lower {
        path: place.join(path),
        shifted,
    };
    Ok(Tree {
        at: place.join("root"),
        parts: vec![Part {
            at: String::new(),
            lowers: vec![lower("image", false), lower("/usr", true)],
            upper: Some((place.join("upper"), place.join("work"))),
        }],
    })
}
