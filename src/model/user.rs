//! The unprivileged user of a sandbox, and who owns a file.

use std::fmt;

use super::{GuestPath, Place};

/// A numeric owner and group, as the guest sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl Owner {
    /// `0:0`.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.uid, self.gid))
    }
}

/// The account that `exec` and files below its home belong to; made when the image has none of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id; the primary group has the same number.
    pub uid: u32,
    /// Where the spec says so.
    pub at: Place,
}

impl User {
    /// The home folder: `/root` for uid 0, else `/home/NAME`.
    #[must_use]
    pub fn home(&self) -> GuestPath {
        GuestPath::trusted(if self.uid == 0 {
            "/root".to_owned()
        } else {
            format!("/home/{}", self.name)
        })
    }

    /// Its id as an owner of files.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner {
            uid: self.uid,
            gid: self.uid,
        }
    }
}
