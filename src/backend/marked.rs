//! Telling the processes of one command from all others inside a sandbox, by a variable that they inherit: for backends
//! that reach them through the sandbox's own shell.

use rustls::crypto::ring;

use super::{Error, ErrorKind, Result};

/// A variable that tells one command's processes from all others.
pub(super) const MARK: &str = "SBX_APPLY_EXEC";
/// Ends every process with that variable, which is the first argument, and all that descend from one. Needs a
/// shell and `/proc`, and no other program. All of them are found before the first is ended, because the parents
/// of those that it leaves behind change; and again until there are none, because they may multiply meanwhile.
pub(super) const KILL_ALL: &str = r#"
marked() {
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in *"$mark"*) return 0 ;; esac
    done
    return 1
}
mark=$1 round=0
while [ "$round" -lt 10 ]; do
    round=$((round + 1)) found=' ' left=' '
    for folder in /proc/[0-9]*; do
        pid=${folder#/proc/}
        { marked < "$folder/environ"; } 2>/dev/null && found="$found$pid " && continue
        { IFS= read -r line < "$folder/stat"; } 2>/dev/null || continue
        line=${line##*') '} line=${line#* }
        left="$left$pid:${line%% *} "
    done
    more=1
    while [ "$more" = 1 ]; do
        more=0
        for pair in $left; do
            case $found in *" ${pair%%:*} "*) continue ;; esac
            case $found in *" ${pair#*:} "*) found="$found${pair%%:*} " more=1 ;; esac
        done
    done
    [ "$found" = ' ' ] && exit
    kill -9 $found 2>/dev/null
done
"#;

/// Tells the marks of all commands whose processes are there, one on each line.
pub(super) const FIND_ALL: &str = r#"
for folder in /proc/[0-9]*; do
    { while IFS= read -r line || [ -n "$line" ]; do
        case $line in *SBX_APPLY_EXEC=*) printf '%.16s\n' "${line#*SBX_APPLY_EXEC=}" && break ;; esac
    done < "$folder/environ"; } 2>/dev/null
done
:
"#;

/// A value that no other command has.
pub(super) fn mark() -> Result<String> {
    let mut random = [0; 8];
    let filled = ring::default_provider().secure_random.fill(&mut random);
    filled.map_err(|_| Error::new(ErrorKind::Failed, "no randomness to mark a command with"))?;
    Ok(format!("{:016x}", u64::from_be_bytes(random)))
}

/// Whether a text has the form of [`mark`].
pub(super) fn is_mark(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
