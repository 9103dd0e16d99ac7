//! Pinned names in `/etc/hosts` (hosts(5)), in a block of our own at its head, so that they come before other lines of the
//! same names. The rest of the file is its user's. Pure.

use super::{HOSTS, text_at, write};
use crate::backend::{Error, ErrorKind, FileChange, Result};
use crate::model::{Inspection, Mode, PinnedPolicy};

const FROM: &str = "# sbx-apply: names that the egress policy opens\n";
const TO: &str = "# sbx-apply: end\n";

/// What has to change for the names of a policy, or none, to stand there.
pub(super) fn change(found: &Inspection, policy: Option<&PinnedPolicy>) -> Result<Option<FileChange>> {
    let there = found.get(&super::path(HOSTS));
    let text = match (there, text_at(found, HOSTS)) {
        (None, _) => "",
        (Some(_), Some(text)) => text,
        (Some(_), None) if policy.is_none_or(|policy| policy.addresses.is_empty()) => return Ok(None),
        (Some(_), None) => {
            let message = format!("its {HOSTS} is no file with text to which pinned names could be added");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
    };
    let wanted = format!("{}{}", policy.map(block).unwrap_or_default(), without(text));
    let mode = there.map_or(Mode::FILE, |there| there.mode);
    Ok((wanted != text).then(|| write(HOSTS, wanted, mode)))
}

/// The lines of a policy's names.
fn block(policy: &PinnedPolicy) -> String {
    if policy.addresses.is_empty() {
        return String::new();
    }
    let mut text = FROM.to_owned();
    for (name, addresses) in policy.names() {
        text.extend(addresses.iter().map(|address| format!("{address} {name}\n")));
    }
    text + TO
}

/// A text without our blocks. One whose end is missing is its head alone.
fn without(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(FROM) {
        let (before, block) = rest.split_at(at);
        kept.push_str(before);
        rest = match block.find(TO) {
            Some(end) => &block[end + TO.len()..],
            None => &block[FROM.len()..],
        };
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rest_is_left_alone() {
        let own = "127.0.0.1 localhost\n";
        let block = format!("{FROM}198.51.100.10 allowed.test\n{TO}");
        assert_eq!(without(&format!("{block}{own}")), own);
        assert_eq!(
            without(&format!("{own}{block}::1 localhost\n{block}")),
            format!("{own}::1 localhost\n")
        );
        assert_eq!(without(&format!("{FROM}{own}")), own);
        assert_eq!(without(own), own);
    }
}
