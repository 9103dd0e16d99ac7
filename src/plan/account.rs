//! The files of accounts: reading them, and adding a user to them. Formats: passwd(5), group(5), shadow(5).

use crate::model::{Owner, User};

/// An account of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Its ids.
    pub owner: Owner,
    /// Its home folder.
    pub home: String,
}

impl Account {
    /// The accounts of an `/etc/passwd`; lines of another form are passed over.
    pub fn read(passwd: &[u8]) -> impl Iterator<Item = Self> {
        passwd.split(|byte| *byte == b'\n').filter_map(|line| {
            let mut parts = std::str::from_utf8(line).ok()?.split(':');
            let name = parts.next().filter(|name| !name.is_empty())?.to_owned();
            let uid = parts.nth(1)?.parse().ok()?;
            let gid = parts.next()?.parse().ok()?;
            let home = parts.nth(1)?.to_owned();
            Some(Self {
                name,
                owner: Owner { uid, gid },
                home,
            })
        })
    }
}

/// The account of that login name.
#[must_use]
pub fn look_up(passwd: &[u8], name: &str) -> Option<Account> {
    Account::read(passwd).find(|account| account.name == name)
}

/// Why a user cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// The name stands for another id.
    #[error("the image has a user `{name}` with uid {found}, not {wanted}")]
    OtherId {
        /// Login name.
        name: String,
        /// Its uid in the image.
        found: u32,
        /// The uid of the spec.
        wanted: u32,
    },
    /// The id belongs to another name.
    #[error("uid {uid} belongs to the user `{holder}` in this image, so `{name}` cannot have it")]
    IdTaken {
        /// The uid.
        uid: u32,
        /// Who has it.
        holder: String,
        /// Who wanted it.
        name: String,
    },
    /// A file of accounts is not text.
    #[error("`{0}` is not a text file")]
    NotText(&'static str),
}

/// The three files with the user added, in the order passwd, group, shadow; none when there is one of that name
/// and id. A missing group or shadow file is an empty one.
///
/// # Errors
/// When the name or the id is somebody else's, or a file is no text.
pub fn ensure_account(
    user: &User,
    passwd: &[u8],
    group: &[u8],
    shadow: &[u8],
) -> Result<Option<[String; 3]>, AccountError> {
    if let Some(account) = look_up(passwd, &user.name) {
        return if account.owner.uid == user.uid {
            Ok(None)
        } else {
            Err(AccountError::OtherId {
                name: user.name.clone(),
                found: account.owner.uid,
                wanted: user.uid,
            })
        };
    }
    if let Some(holder) = Account::read(passwd).find(|account| account.owner.uid == user.uid) {
        return Err(AccountError::IdTaken {
            uid: user.uid,
            holder: holder.name,
            name: user.name.clone(),
        });
    }
    let text = |bytes: &[u8], file| {
        let mut text = String::from_utf8(bytes.to_vec()).map_err(|_| AccountError::NotText(file))?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        Ok(text)
    };
    let (name, uid, home) = (&user.name, user.uid, user.home());
    let mut passwd = text(passwd, "/etc/passwd")?;
    let mut group = text(group, "/etc/group")?;
    let mut shadow = text(shadow, "/etc/shadow")?;
    passwd.push_str(&format!("{name}:x:{uid}:{uid}::{home}:/bin/sh\n"));
    let holds = |line: &str, at: usize, what: &str| line.split(':').nth(at) == Some(what);
    if !group
        .lines()
        .any(|line| holds(line, 0, name) || holds(line, 2, &uid.to_string()))
    {
        group.push_str(&format!("{name}:x:{uid}:\n"));
    }
    if !shadow.lines().any(|line| holds(line, 0, name)) {
        // No password can match `!`; the empty fields mean that nothing ever expires.
        shadow.push_str(&format!("{name}:!:::::::\n"));
    }
    Ok(Some([passwd, group, shadow]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Place;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# a remark\nuser:x:1000:1000::/home/user:/bin/sh";

    fn user(name: &str, uid: u32) -> User {
        User {
            name: name.to_owned(),
            uid,
            at: Place::nowhere(),
        }
    }

    #[test]
    fn a_user_is_added_once() {
        let [passwd, group, shadow] = ensure_account(&user("dev", 1001), PASSWD, b"root:x:0:\n", b"")
            .expect("no clash")
            .expect("is new");
        assert!(passwd.ends_with("user:x:1000:1000::/home/user:/bin/sh\ndev:x:1001:1001::/home/dev:/bin/sh\n"));
        assert_eq!(group, "root:x:0:\ndev:x:1001:\n");
        assert_eq!(shadow, "dev:!:::::::\n");
        let again = ensure_account(
            &user("dev", 1001),
            passwd.as_bytes(),
            group.as_bytes(),
            shadow.as_bytes(),
        );
        assert_eq!(again, Ok(None));
    }

    #[test]
    fn a_name_or_an_id_of_somebody_else_is_refused() {
        assert_eq!(
            ensure_account(&user("dev", 1000), PASSWD, b"", b"")
                .expect_err("taken")
                .to_string(),
            "uid 1000 belongs to the user `user` in this image, so `dev` cannot have it"
        );
        assert!(matches!(
            ensure_account(&user("user", 1001), PASSWD, b"", b""),
            Err(AccountError::OtherId {
                found: 1000,
                wanted: 1001,
                ..
            })
        ));
    }
}
