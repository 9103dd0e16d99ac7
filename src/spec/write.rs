//! A desired state, written as a spec.

use std::collections::BTreeMap;
use std::path::Path;

use super::convert::text_of;
use super::decode;
use super::language::{Type, destination};
use super::load::Rejected;
use super::problems::Problems;
use super::source::Sources;
use super::syntax::{Format, Name, Node, Scalar, Tree, Value};
use super::validate::is_allowed;
use crate::model::{
    Data, Desired, EgressMode, Enforcement, File, FileState, Origin, Owner, Place, Policy, Power, Protocol, Sandbox,
    SandboxName, User, clean,
};

/// Takes out of a sandbox what the language cannot say, or would refuse: values of a live system may be anything. Gives a
/// line about each. `root` is the real path of the folder that the spec is to stand in; without one, it mounts nothing.
#[must_use]
pub fn sayable(sandbox: &mut Sandbox, root: Option<&Path>) -> Vec<String> {
    let mut left_out = Vec::new();
    sandbox.mounts.retain(|path, mount| {
        let source = root
            .and_then(|root| below(&mount.source, root))
            .filter(|source| Type::Source.check(source).is_ok());
        let good = source.is_some() && mount.source.canonicalize().is_ok_and(|real| real == mount.source);
        if !good {
            left_out.push(format!(
                "{} is mounted at {path}; say so where the spec is: mount {path} source=…",
                mount.source.display()
            ));
        }
        good
    });
    sandbox.env.retain(|name, value| {
        let good = Type::EnvironmentVariable.check(name).is_ok() && Type::Note.check(value).is_ok();
        if !good {
            left_out.push(format!("the variable {name} is nothing that a spec can say: {value}"));
        }
        good
    });
    sandbox.config.retain(|key, (value, _)| {
        let good = Type::ConfigKey.check(key).is_ok() && Type::Setting.check(value).is_ok() && is_allowed(key);
        if !good {
            left_out.push(format!(
                "the setting {key} is {value}, which a spec may not say on its own"
            ));
        }
        good
    });
    let mut number = |what: &str, good: bool| {
        if !good {
            left_out.push(format!("its {what} is out of all bounds"));
        }
        good
    };
    let fits = |kind: Type, text: String| kind.check(&text).is_ok();
    let cpu = Type::Integer { min: 1, max: 4_096 };
    sandbox
        .cpu
        .take_if(|(number_of, _)| !number("cpu", fits(cpu, number_of.to_string())));
    sandbox
        .memory
        .take_if(|(memory, _)| !number("memory", fits(Type::Memory, memory.to_string())));
    sandbox
        .disk
        .take_if(|(disk, _)| !number("disk", fits(Type::Size, disk.to_string())));
    sandbox
        .ttl
        .take_if(|(ttl, _)| !number("ttl", fits(Type::Duration, ttl.to_string())));
    sandbox
        .user
        .take_if(|user| !number("user", fits(Type::UserName, user.name.clone()) && user.uid < u32::MAX));
    sandbox.files.retain(|path, file| {
        let good = match &file.state {
            FileState::Content(content) => text(&content.data).is_some(),
            FileState::Absent | FileState::Secret(_) => true,
        };
        let good = good && file.owner.uid < u32::MAX && file.owner.gid < u32::MAX;
        if !good {
            left_out.push(format!("the file {path} is no text that a spec can hold"));
        }
        good
    });
    if let Some(policy) = &mut sandbox.egress {
        policy.allow.retain(|rule| {
            // Whether there is such a sandbox, whoever writes the whole spec knows.
            if rule.to.sandbox().is_some() {
                return true;
            }
            let said = destination(&rule.to.to_string());
            if let Err(complaint) = &said {
                left_out.push(format!(
                    "its egress policy opens what no spec can say: {}",
                    complaint.message
                ));
            }
            said.is_ok_and(|said| said == rule.to)
        });
        policy.settle();
    }
    if let Origin::Image { name, .. } = &mut sandbox.origin
        && Type::Image.check(name).is_err()
    {
        left_out.push(format!("its image is called {name}, which is no name of one"));
        "unknown".clone_into(name);
    }
    left_out
}

/// A source as a spec in `root` names it.
fn below(source: &Path, root: &Path) -> Option<String> {
    match source.strip_prefix(root).ok()?.to_str()? {
        "" => Some(".".to_owned()),
        below => Some(below.to_owned()),
    }
}

/// Contents as the text that a spec can hold.
fn text(data: &Data) -> Option<&str> {
    let Data::Bytes(bytes) = data else { return None };
    let text = std::str::from_utf8(bytes).ok()?;
    Type::Text.check(text).is_ok().then_some(text)
}

/// Writes a spec that is to stand in the folder `root`: what [`sayable`] has let through, with lines of comments at its head and about each sandbox. Trees,
/// set-up steps and whatever else [`super::load`] reads from files are not written.
///
/// # Errors
/// What the language does not take after all.
pub fn write(
    desired: &Desired,
    head: &[String],
    about: &BTreeMap<SandboxName, Vec<String>>,
    format: Format,
    root: &Path,
) -> Result<String, Rejected> {
    let mut nodes = vec![node("environment", [word(desired.environment.as_str())])];
    let mut backend = node("backend", [word(&desired.backend.name)]);
    backend.props.extend(
        desired
            .backend
            .settings
            .iter()
            .map(|(key, value)| property(key, string(value))),
    );
    nodes.push(backend);
    let policies = desired.sandboxes.values().filter_map(|sandbox| sandbox.egress.as_ref());
    let shared: BTreeMap<&String, &Policy> = policies
        .filter_map(|policy| Some((policy.name.as_ref()?, policy)))
        .collect();
    nodes.extend(shared.into_iter().map(|(name, policy)| Node {
        args: vec![word(name)],
        ..rules(policy)
    }));
    nodes.extend(desired.sandboxes.values().map(|one| sandbox(one, root)));
    let mut problems = Problems::default();
    let tree = Tree {
        format: Format::Kdl,
        nodes,
        problems: Vec::new(),
        start: Place::nowhere(),
    };
    let block = decode::document(tree, &mut problems);
    if !problems.is_empty() {
        return Err(Rejected {
            diagnostics: problems.into_sorted(),
            sources: Sources::default(),
        });
    }
    let mark = match format {
        Format::Kdl => "//",
        Format::Yaml => "#",
    };
    let comment = |line: &String| format!("{mark} {}\n", harmless(line));
    let mut written: String = head.iter().map(comment).collect();
    for (name, lines) in about.iter().filter(|(_, lines)| !lines.is_empty()) {
        written.push_str(&comment(&format!("{name}:")));
        written.extend(lines.iter().map(|line| comment(&format!("  - {line}"))));
    }
    if !written.is_empty() {
        written.push('\n');
    }
    written.push_str(&text_of(&block, format));
    Ok(written)
}

/// A line of a comment, whatever the live system has put into it: no end before its end, and nothing that no text may
/// have (YAML 1.2.2, section 5.1; KDL 2.0.0, "Disallowed Literal Code Points").
fn harmless(line: &str) -> String {
    const LONGEST: usize = 400;
    let mut text: String = clean(line).replace(['\u{fffe}', '\u{ffff}', '\t'], " ");
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn sandbox(sandbox: &Sandbox, root: &Path) -> Node {
    let mut made = node("sandbox", [word(sandbox.name.as_str())]);
    let mut add = |node: Node| made.children.push(node);
    match &sandbox.origin {
        Origin::Image { name, .. } => add(node("image", [string(name)])),
        Origin::Clone { sandbox, snapshot, .. } => {
            let mut clone = node("clone-from", [word(sandbox.as_str())]);
            clone
                .props
                .extend(snapshot.iter().map(|name| property("snapshot", word(name.as_str()))));
            add(clone);
        }
    }
    if let Some((cpu, _)) = &sandbox.cpu {
        add(node("cpu", [number(*cpu)]));
    }
    if let Some((memory, _)) = &sandbox.memory {
        add(node("memory", [word(&memory.to_string())]));
    }
    if let Some((disk, _)) = &sandbox.disk {
        add(node("disk", [word(&disk.to_string())]));
    }
    if sandbox.state == Power::Stopped {
        add(node("state", [word(sandbox.state.as_str())]));
    }
    if !sandbox.env.is_empty() {
        let mut env = node("env", []);
        env.props
            .extend(sandbox.env.iter().map(|(name, value)| property(name, string(value))));
        add(env);
    }
    if !sandbox.config.is_empty() {
        let mut config = node("config", []);
        config.props.extend(
            sandbox
                .config
                .iter()
                .map(|(key, (value, _))| property(key, string(value))),
        );
        add(config);
    }
    if let Some(user) = &sandbox.user {
        let mut made = node("user", [string(&user.name)]);
        made.props.push(property("uid", number(user.uid)));
        add(made);
    }
    for (path, declared) in &sandbox.files {
        add(file(path.as_str(), declared, sandbox.user.as_ref()));
    }
    for (path, mount) in &sandbox.mounts {
        let mut made = node("mount", [string(path.as_str())]);
        let source = below(&mount.source, root).unwrap_or_default();
        made.props.push(property("source", string(&source)));
        if mount.readonly {
            made.props.push(property("readonly", boolean()));
        }
        add(made);
    }
    for (name, volume) in &sandbox.volumes {
        let mut made = node("volume", [word(name)]);
        made.props.push(property("path", string(volume.path.as_str())));
        if let Some((size, _)) = &volume.size {
            made.props.push(property("size", string(&size.to_string())));
        }
        add(made);
    }
    if let Some(policy) = &sandbox.egress {
        add(match &policy.name {
            Some(name) => node("egress", [word(name)]),
            None => rules(policy),
        });
    }
    for port in &sandbox.ports {
        let mut made = node("port", [number(u32::from(port.guest.number))]);
        made.props.push(property("host", number(u32::from(port.host))));
        if port.guest.protocol == Protocol::Udp {
            made.props.push(property("protocol", word("udp")));
        }
        add(made);
    }
    if !sandbox.snapshots.is_empty() {
        let names = sandbox.snapshots.iter().map(|(name, _)| word(name.as_str()));
        add(node("snapshot", names));
    }
    if !sandbox.depends_on.is_empty() {
        add(node(
            "depends-on",
            sandbox.depends_on.iter().map(|name| word(name.as_str())),
        ));
    }
    if sandbox.protect.is_some() {
        add(node("protect", [boolean()]));
    }
    if let Some((ttl, _)) = &sandbox.ttl {
        add(node("ttl", [word(&ttl.to_string())]));
    }
    for ignored in &sandbox.ignore {
        let field = ignored.field.to_string();
        if Type::Field.check(&field).is_err() {
            continue;
        }
        let mut ignore = node("ignore", [string(&field)]);
        ignore
            .props
            .extend(ignored.until.map(|until| property("until", word(&until.to_string()))));
        ignore
            .props
            .extend(ignored.reason.iter().map(|reason| property("reason", string(reason))));
        add(ignore);
    }
    made
}

/// What a policy opens.
fn rules(policy: &Policy) -> Node {
    let mut made = node("egress", []);
    if policy.mode != EgressMode::Allowlist {
        made.children.push(node("mode", [word(policy.mode.as_str())]));
    }
    if policy.enforce == Some(Enforcement::Guest) {
        made.children.push(node("enforce", [word("guest")]));
    }
    for rule in &policy.allow {
        let mut allow = match rule.to.sandbox() {
            Some(_) => node("allow", []),
            None => node("allow", [string(&rule.to.to_string())]),
        };
        let sandbox = rule.to.sandbox().map(|name| property("sandbox", string(name.as_str())));
        allow.props.extend(sandbox);
        allow
            .props
            .extend(rule.ports.map(|ports| property("port", word(&ports.to_string()))));
        let protocol = rule
            .protocol
            .map(|protocol| property("protocol", word(&protocol.to_string())));
        allow.props.extend(protocol);
        made.children.push(allow);
    }
    made
}

/// A file, without what goes without saying.
fn file(path: &str, file: &File, user: Option<&User>) -> Node {
    let mut made = node("file", [string(path)]);
    let mut add = |key: &str, value: Value| made.props.push(property(key, value));
    match &file.state {
        FileState::Absent => {
            add("absent", boolean());
            return made;
        }
        FileState::Secret(variable) => add("secret", string(variable)),
        FileState::Content(content) => add("content", string(text(&content.data).unwrap_or_default())),
    }
    let usual_mode = match file.state {
        FileState::Secret(_) => crate::model::Mode::SECRET,
        _ => crate::model::Mode::FILE,
    };
    if file.mode != usual_mode {
        add("mode", word(&file.mode.to_string()));
    }
    let home = user.filter(|user| path.starts_with(&format!("{}/", user.home())));
    if file.owner != home.map_or(Owner::ROOT, User::owner) {
        add("owner", number(file.owner.uid));
        add("group", number(file.owner.gid));
    }
    made
}

fn node(name: &str, args: impl IntoIterator<Item = Value>) -> Node {
    Node {
        name: named(name),
        args: args.into_iter().collect(),
        props: Vec::new(),
        children: Vec::new(),
        at: Place::nowhere(),
        flawed: false,
    }
}

fn named(text: &str) -> Name {
    Name {
        text: text.to_owned(),
        at: Place::nowhere(),
    }
}

fn property(key: &str, value: Value) -> (Name, Value) {
    (named(key), value)
}

fn value(scalar: Scalar, text: String) -> Value {
    Value {
        scalar,
        text,
        at: Place::nowhere(),
    }
}

/// A text in which variables would be expanded.
fn string(text: &str) -> Value {
    value(Scalar::String, text.replace("${", "$${"))
}

/// A text that holds nothing of the kind.
fn word(text: &str) -> Value {
    value(Scalar::String, text.to_owned())
}

fn number(number: u32) -> Value {
    value(Scalar::Number, number.to_string())
}

fn boolean() -> Value {
    value(Scalar::Boolean, "true".to_owned())
}
