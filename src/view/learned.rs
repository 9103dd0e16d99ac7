//! What a command was seen to need, as lines for a spec.
//!
//! Names come from questions that a sandbox has put, so nothing of them but what a host name can be gets here
//! ([`crate::backend`] answers no others).

use std::fmt::Write as _;

use crate::model::{EgressMode, Learned, Missing, Opening};
use crate::spec::Format;

/// So many lines of each kind; whoever goes to more places is up to something.
const LINES: usize = 200;

/// Where the lines belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group<'a> {
    /// To a policy that sandboxes share, by its name.
    Policy(&'a str),
    /// To a sandbox's own, by the sandbox's name.
    Sandbox(&'a str),
}

/// The lines, and comments about what no line can be made of. `mode` is what the spec says now.
#[must_use]
pub fn patch(group: Group<'_>, mode: EgressMode, learned: &Learned, missing: &Missing, format: Format) -> String {
    let mark = match format {
        Format::Kdl => "//",
        Format::Yaml => "#",
    };
    let mut text = String::new();
    let mut about = |line: String| text.push_str(&format!("{mark} {line}\n"));
    let whose = match group {
        Group::Policy(name) => format!("the policy {name}"),
        Group::Sandbox(name) => format!("{name}'s own policy"),
    };
    match missing.open.is_empty() {
        true if learned.connections.is_empty() => about("No connection was made.".to_owned()),
        true => about(format!("Nothing is missing: {whose} opens all that was asked for.")),
        false => about(format!(
            "What was asked for and {whose} does not open. Read it before you add it."
        )),
    }
    if !missing.open.is_empty() && matches!(mode, EgressMode::None | EgressMode::Unrestricted) {
        about(format!("The spec says {mode}; this is for an allowlist in its place."));
    }
    let mut listed = |what: &str, names: &mut dyn Iterator<Item = &String>| {
        let names: Vec<&str> = names.take(LINES).map(String::as_str).collect();
        if !names.is_empty() {
            about(format!("{what}: {}", names.join(", ")));
        }
    };
    listed("Looked up, and does not resolve", &mut missing.unresolved.iter());
    listed("Looked up, and no connection made", &mut missing.unused.iter());
    if missing.open.len() > LINES {
        about(format!(
            "{} more destinations are left out.",
            missing.open.len() - LINES
        ));
    }
    if !missing.open.is_empty() {
        let open = missing.open.iter().take(LINES);
        match format {
            Format::Kdl => kdl(&mut text, group, open),
            Format::Yaml => yaml(&mut text, group, open),
        }
    }
    text
}

fn times(count: u64) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}

fn kdl<'a>(text: &mut String, group: Group<'_>, open: impl Iterator<Item = (&'a Opening, &'a u64)>) {
    let (head, indent, tail) = match group {
        Group::Policy(name) => (format!("egress \"{name}\" {{"), "    ", "}"),
        Group::Sandbox(name) => (format!("sandbox \"{name}\" {{\n    egress {{"), "        ", "    }\n}"),
    };
    let _ = writeln!(text, "{head}");
    for (opening, count) in open {
        let _ = write!(text, "{indent}// {}\n{indent}allow ", times(*count));
        let _ = match opening.to.sandbox() {
            Some(name) => write!(text, "sandbox=\"{name}\""),
            None => write!(text, "\"{}\"", opening.to),
        };
        if let Some(ports) = opening.ports {
            let _ = write!(text, " port={ports}");
        }
        if let Some(protocol) = opening.protocol {
            let _ = write!(text, " protocol=\"{protocol}\"");
        }
        text.push('\n');
    }
    let _ = writeln!(text, "{tail}");
}

fn yaml<'a>(text: &mut String, group: Group<'_>, open: impl Iterator<Item = (&'a Opening, &'a u64)>) {
    let (head, indent) = match group {
        Group::Policy(name) => (format!("egress:\n  {name}:\n    allow:"), "    "),
        Group::Sandbox(name) => (format!("sandboxes:\n  {name}:\n    egress:\n      allow:"), "      "),
    };
    let _ = writeln!(text, "{head}");
    for (opening, count) in open {
        let _ = write!(text, "{indent}# {}\n{indent}- ", times(*count));
        let _ = match opening.to.sandbox() {
            Some(name) => writeln!(text, "sandbox: {name}"),
            None => writeln!(text, "to: '{}'", opening.to),
        };
        if let Some(ports) = opening.ports {
            let _ = writeln!(text, "{indent}  port: '{ports}'");
        }
        if let Some(protocol) = opening.protocol {
            let _ = writeln!(text, "{indent}  protocol: {protocol}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing() -> Missing {
        let open = [
            ("example.com:443/tcp", 3),
            ("198.51.100.20:53/udp", 1),
            ("sandbox/db:5432/tcp", 1),
        ];
        let open = open.map(|(text, count)| (text.parse().expect("an opening"), count));
        Missing {
            open: open.into(),
            unresolved: ["gone.test".to_owned()].into(),
            unused: ["idle.test".to_owned()].into(),
        }
    }

    fn shown(group: Group<'_>, mode: EgressMode, format: Format) -> String {
        patch(group, mode, &Learned::default(), &missing(), format)
    }

    /// A whole spec with the lines in it.
    fn reads(text: &str, rest: &str, name: &str) {
        let whole = format!("{text}\n{rest}");
        let input = crate::spec::Input::Text {
            name: name.to_owned(),
            bytes: whole.clone().into_bytes(),
            format: None,
        };
        let request = crate::spec::Request {
            input,
            root: None,
            environment: None,
            backend: None,
            variables: Vec::new(),
            allow_unsafe_config: Vec::new(),
        };
        let loaded = crate::spec::load(&request);
        let loaded = loaded.unwrap_or_else(|rejected| panic!("{whole}: {:?}", rejected.diagnostics));
        let sandbox = loaded.desired.sandboxes.values().next().expect("a sandbox");
        let open = sandbox
            .egress
            .iter()
            .flat_map(|policy| policy.allow.iter().map(|rule| rule.opening()));
        let wanted: std::collections::BTreeSet<_> = missing().open.into_keys().collect();
        assert_eq!(open.collect::<std::collections::BTreeSet<_>>(), wanted, "{whole}");
    }

    #[test]
    fn what_is_printed_reads_as_a_spec() {
        let shared = Group::Policy("web");
        let text = shown(shared, EgressMode::Allowlist, Format::Kdl);
        assert!(
            text.contains("    // 3 times\n    allow \"example.com\" port=443 protocol=\"tcp\"\n"),
            "{text}"
        );
        assert!(
            text.contains("// once\n") && text.contains("does not resolve: gone.test"),
            "{text}"
        );
        reads(
            &text,
            "environment \"x\"\nsandbox \"a\" { image \"i\"; egress \"web\"; }\nsandbox \"db\" { image \"i\"; }",
            "x.kdl",
        );
        let text = shown(shared, EgressMode::Allowlist, Format::Yaml);
        reads(
            &text,
            "environment: x\nsandboxes:\n  a:\n    image: i\n    egress: web\n  db: { image: i }",
            "x.yaml",
        );
    }

    #[test]
    fn a_sandbox_has_its_own() {
        let text = shown(Group::Sandbox("a"), EgressMode::None, Format::Kdl);
        assert!(text.contains("The spec says none"), "{text}");
        assert!(
            text.contains("        allow sandbox=\"db\" port=5432 protocol=\"tcp\"\n"),
            "{text}"
        );
        let rest = "sandbox \"db\"\nenvironment \"x\"\ndefaults { image \"i\"; }";
        reads(&text, rest, "x.kdl");
        let text = shown(Group::Sandbox("a"), EgressMode::Unrestricted, Format::Yaml);
        let rest = "  db: {}\nenvironment: x\ndefaults:\n  image: i";
        reads(&text, rest, "x.yaml");
    }
}
