//! What a shell inside is told to run.
//!
//! SSH hands one text to a shell, so every word is quoted. And whoever looks at the list of processes inside sees that
//! text; so it is always the same few words, which read what is really to be done from their input.

use std::collections::BTreeMap;

use crate::backend::Account;
use crate::backend::marked::MARK;

/// Where programs are looked for when the sandbox does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As whom, where and with what a command runs.
#[derive(Debug)]
pub(in crate::backend::truenas) struct Identity<'a> {
    /// As whom.
    pub(in crate::backend::truenas) account: &'a Account,
    /// The sandbox's variables; those of the call stand over them.
    pub(in crate::backend::truenas) declared: &'a BTreeMap<String, String>,
    /// The call's variables.
    pub(in crate::backend::truenas) env: &'a BTreeMap<String, String>,
    /// What tells its processes from others.
    pub(in crate::backend::truenas) mark: &'a str,
}

/// A word that a shell takes as it is.
pub(in crate::backend::truenas) fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The words, quoted.
fn command(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// What a shell does to become a command.
pub(in crate::backend::truenas) fn prelude(words: &[String], identity: &Identity<'_>) -> String {
    let account = identity.account;
    let mut variables = BTreeMap::from([
        ("PATH", PATH),
        ("HOME", account.home.as_str()),
        ("USER", account.name.as_str()),
    ]);
    let given = identity.declared.iter().chain(identity.env);
    variables.extend(given.map(|(name, value)| (name.as_str(), value.as_str())));
    variables.insert(MARK, identity.mark);
    let (plain, odd): (Vec<_>, Vec<_>) = variables.into_iter().partition(|(name, _)| is_name(name));
    let mut script = String::from("unset SSH_CLIENT SSH_CONNECTION SSH_TTY SSH_ORIGINAL_COMMAND MAIL LOGNAME SHELL\n");
    let exports: String = plain
        .iter()
        .map(|(name, value)| format!("export {name}={}\n", quoted(value)))
        .collect();
    script.push_str(&exports);
    script.push_str(&format!("cd {} 2>/dev/null || cd /\n", quoted(&account.home)));
    let mut words = command(words);
    if !odd.is_empty() {
        // No shell takes such names; a program does.
        let odd: Vec<String> = odd
            .iter()
            .map(|(name, value)| quoted(&format!("{name}={value}")))
            .collect();
        words = format!("env {} {words}", odd.join(" "));
    }
    let owner = account.owner;
    if (owner.uid, owner.gid) == (0, 0) {
        script.push_str(&format!("exec {words}\n"));
        return script;
    }
    let (uid, gid, name) = (owner.uid, owner.gid, quoted(&account.name));
    // What a login does to these is undone.
    let again = ["PATH", "HOME", "USER"].map(|name| {
        let value = plain.iter().find(|(of, _)| *of == name).map_or("", |(_, value)| value);
        format!("export {name}={}\n", quoted(value))
    });
    let inner = quoted(&format!("{}exec {words}", again.concat()));
    script.push_str(&format!(
        "if setpriv --reuid={uid} --regid={gid} --clear-groups true 2>/dev/null; then\n\
         exec setpriv --reuid={uid} --regid={gid} --clear-groups {words}\n\
         fi\n\
         if [ \"$(id -u {name} 2>/dev/null):$(id -g {name} 2>/dev/null)\" = {uid}:{gid} ]; then\n\
         exec su -s /bin/sh {name} -c {inner}\n\
         fi\n\
         echo \"sbx-apply: cannot become user {uid}: the sandbox has neither setpriv nor an account of that id\" >&2\n\
         exit 125\n"
    ));
    script
}

/// Whether a shell can export a variable of that name.
fn is_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// The text for SSH: a shell that does what stands in the first `length` bytes of its input. The rest is the command's.
pub(super) fn from_input(length: usize) -> String {
    format!("exec /bin/sh -c 'eval \"$(dd bs=1 count={length} 2>/dev/null)\"'")
}

/// The text for SSH: a shell that does what stands in a file, which goes first.
pub(super) fn from_file(path: &str) -> String {
    let path = path.replace(|c: char| !c.is_ascii_alphanumeric() && !"/._-".contains(c), "");
    format!("exec /bin/sh -c 'eval \"$(cat {path}; rm -f {path})\"'")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::model::Owner;

    /// What a real shell does with it.
    fn run(words: &[&str], declared: &[(&str, &str)], env: &[(&str, &str)]) -> (String, Option<i32>) {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let account = Account {
            owner: Owner::ROOT,
            home: "/tmp".to_owned(),
            name: "it's me".to_owned(),
        };
        let (declared, env) = (map(declared), map(env));
        let identity = Identity {
            account: &account,
            declared: &declared,
            env: &env,
            mark: "0123456789abcdef",
        };
        let script = prelude(&words, &identity);
        let output = Command::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .env("SSH_CLIENT", "x")
            .output()
            .expect("runs");
        (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            output.status.code(),
        )
    }

    #[test]
    fn words_arrive_as_they_are() {
        let odd = [
            "/usr/bin/printf",
            "%s|",
            "a b",
            "it's",
            "$HOME",
            "`id`",
            "\"",
            "\\",
            "*",
            "",
            "-n",
            "é\n",
        ];
        assert_eq!(run(&odd, &[], &[]).0, "a b|it's|$HOME|`id`|\"|\\|*||-n|é\n|");
    }

    #[test]
    fn variables_of_the_call_stand_over_the_declared_ones_and_nothing_else_comes_along() {
        let (said, _) = run(
            &["/usr/bin/env"],
            &[("A", "1"), ("B", "it's"), ("odd.name", "x")],
            &[("A", "2"), ("EMPTY", "")],
        );
        let has = |line: &str| said.lines().any(|found| found == line);
        for line in [
            "A=2",
            "B=it's",
            "EMPTY=",
            "HOME=/tmp",
            "USER=it's me",
            "odd.name=x",
            "SBX_APPLY_EXEC=0123456789abcdef",
        ] {
            assert!(has(line), "{line}: {said}");
        }
        assert!(!said.contains("SSH_CLIENT"));
    }

    #[test]
    fn a_program_that_is_not_there_is_127() {
        assert_eq!(run(&["/no/such"], &[], &[]).1, Some(127));
        assert_eq!(run(&["/bin/sh", "-c", "exit 7"], &[], &[]).1, Some(7));
    }
}
