//! Whether this machine lets sandboxes be made, and what has to be changed where it does not.

use std::fs;
use std::path::Path;

use super::Local;
use super::wire::Request;
use crate::backend::{Error, ErrorKind, Result};

/// Settings of the kernel that forbid user namespaces, each with the value that does, and words for who can change it.
const FORBIDDING: [(&str, &str, &str); 3] = [
    (
        "user/max_user_namespaces",
        "0",
        "user.max_user_namespaces is 0: root can set it to 10000",
    ),
    (
        "kernel/unprivileged_userns_clone",
        "0",
        "kernel.unprivileged_userns_clone is 0: root can set it to 1",
    ),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "kernel.apparmor_restrict_unprivileged_userns is 1: root can set it to 0, or allow this program a profile",
    ),
];

impl Local {
    /// Tries all that a sandbox needs of this machine, and leaves nothing of it.
    pub(super) async fn try_machine(&self) -> Result<()> {
        check_place(self.store.root())?;
        let Err(error) = self.helpers.perform(&Request::Probe(self.ids)).await else {
            return Ok(());
        };
        let forbidding = FORBIDDING.iter().filter(|(_, _, words)| {
            // The last two bind users only.
            !self.ids.is_root() || words.starts_with("user.")
        });
        let hint = forbidding.into_iter().find_map(|(file, value, words)| {
            let set = fs::read_to_string(format!("/proc/sys/{file}")).ok()?;
            (set.trim() == *value).then_some(*words)
        });
        let error = Error::new(
            ErrorKind::Unsupported,
            format!("this machine makes no sandboxes: {error}"),
        );
        Err(error.with_hint(hint.unwrap_or(
            "they want Linux 6.7 or newer, user namespaces, and leave to mount in them; inside a container these may be \
             forbidden",
        )))
    }
}

/// File systems that the kernel takes no layers of which are written to, by their numbers (statfs(2)), and what they are.
const UNFIT: [(u32, &str); 4] = [
    (0x794c_7630, "an overlay, as the root folder of most containers does"),
    (0x0000_6969, "a network file system"),
    (0xff53_4d42, "a network file system"),
    (0x0102_1997, "a file system of another machine's"),
];

/// Refuses a state folder where no layers can be. Made with the first sandbox, it lies where the folder above it does.
fn check_place(state: &Path) -> Result<()> {
    let found = state.ancestors().find_map(|folder| rustix::fs::statfs(folder).ok());
    let kind = found.and_then(|found| u32::try_from(found.f_type & 0xffff_ffff).ok());
    let unfit = UNFIT.iter().find(|(number, _)| Some(*number) == kind);
    let Some((_, what)) = unfit else { return Ok(()) };
    let message = format!("no sandboxes can be kept in {}: it lies on {what}", state.display());
    Err(Error::new(ErrorKind::Unsupported, message).with_hint(
        "name a folder on a disk of this machine, by `SBX_LOCAL_STATE` or the setting `state`; in a container, a volume",
    ))
}
