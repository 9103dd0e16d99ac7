//! Whether this machine lets sandboxes be made, and what has to be changed where it does not.

use std::fs;

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
