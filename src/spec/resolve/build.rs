//! A sandbox of the model, from its merged layers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use indexmap::IndexMap;

use crate::model::{
    Bytes, Content, Date, Destination, Diagnostic, EgressMode, EgressRule, Enforcement, Entry, Field, File, FileState,
    GuestPath, GuestPort, Ignored, Kind as FieldKind, Memory, Mode, Mount, OnStale, Origin, Owner, Place, Policy, Port,
    Power, Protocol, Ready, Run, Sandbox, SandboxName, Script, Seconds, SnapshotName, Sourced, StepName, Tree, User,
    Volume, When, agent_preset,
};
use crate::spec::decode::Block;
use crate::spec::language::{destination, ports};
use crate::spec::problems::Problems;
use crate::spec::syntax::Value;

use super::desired::Declared;
use super::files::{self, Folders, Kind};
use super::{trees, workspace};
use crate::spec::inputs::Read;

/// How long a set-up step may take when it does not say.
const RUN_TIMEOUT: Seconds = Seconds(600);
/// How long to wait for readiness when it does not say.
const READY_TIMEOUT: Seconds = Seconds(60);
/// The user's id when the spec does not say.
const UID: u32 = 1_000;
/// How many bytes a script may have.
const SCRIPT_LIMIT: u64 = 1 << 20;

type TreeKey = (PathBuf, Vec<String>);

/// Builds sandboxes. What it cannot build has been reported, or is reported by it.
pub(super) struct Builder<'a> {
    declared: HashMap<&'a str, &'a Block>,
    egress: &'a IndexMap<String, Block>,
    folders: &'a Folders,
    contents: HashMap<PathBuf, Content>,
    trees: HashMap<TreeKey, BTreeMap<String, Entry>>,
    /// What the sandbox that is being built has from where.
    sources: BTreeMap<(FieldKind, String), Sourced>,
}

/// A value read as what its type says. None where that has been reported already.
fn read<T: std::str::FromStr>(block: &Block, name: &str) -> Option<T> {
    block.text(name)?.parse().ok()
}

fn placed<T: std::str::FromStr>(block: &Block, name: &str) -> Option<(T, Place)> {
    let value = block.value(name)?;
    Some((value.text.parse().ok()?, value.at.clone()))
}

fn label_path(block: &Block) -> Option<GuestPath> {
    GuestPath::new(block.name()).ok()
}

impl<'a> Builder<'a> {
    pub(super) fn new(declared: &'a [Declared], egress: &'a IndexMap<String, Block>, folders: &'a Folders) -> Self {
        Self {
            declared: declared
                .iter()
                .map(|declared| (declared.block.name(), &declared.block))
                .collect(),
            egress,
            folders,
            contents: HashMap::new(),
            trees: HashMap::new(),
            sources: BTreeMap::new(),
        }
    }

    /// Builds one, its count and what it depends on left to the caller.
    pub(super) fn sandbox(&mut self, block: &Block, problems: &mut Problems) -> Option<Sandbox> {
        let name = SandboxName::new(block.name()).ok();
        self.sources.clear();
        let user = self.user(block);
        let files = self.files(block, user.as_ref(), problems);
        let trees = self.trees(block, user.as_ref(), problems);
        let run = self.run(block, problems);
        let mounts = self.mounts(block, problems);
        let mut trees = trees?;
        let files = files?;
        leave_room(&files, &mut trees, problems);
        let name = name?;
        Some(Sandbox {
            base: name.clone(),
            name,
            at: block.at.clone(),
            origin: origin(block)?,
            cpu: placed(block, "cpu"),
            memory: placed::<Memory>(block, "memory"),
            disk: placed::<Bytes>(block, "disk"),
            state: match block.text("state") {
                Some("stopped") => Power::Stopped,
                _ => Power::Running,
            },
            env: block
                .map("env")
                .iter()
                .map(|(key, value)| (key.text.clone(), value.text.clone()))
                .collect(),
            env_places: block
                .map("env")
                .iter()
                .map(|(key, _)| (key.text.clone(), key.at.clone()))
                .collect(),
            config: block
                .map("config")
                .iter()
                .map(|(key, value)| (key.text.clone(), (value.text.clone(), key.at.clone())))
                .collect(),
            user,
            files,
            trees,
            run: run?,
            ready: block.block("ready").map(ready),
            snapshots: block
                .values("snapshot")
                .iter()
                .filter_map(|value| Some((SnapshotName::new(value.text.as_str()).ok()?, value.at.clone())))
                .collect(),
            mounts: mounts?,
            volumes: block.blocks("volume").filter_map(volume).collect(),
            ports: block.blocks("port").filter_map(port).collect(),
            depends_on: std::collections::BTreeSet::new(),
            egress: block.block("egress").and_then(|policy| self.policy(policy)),
            protect: block
                .value("protect")
                .filter(|value| value.text == "true")
                .map(|value| value.at.clone()),
            ttl: placed(block, "ttl"),
            target: placed(block, "target"),
            ignore: block.blocks("ignore").filter_map(ignored).collect(),
            sources: std::mem::take(&mut self.sources),
        })
    }

    /// The sandbox's user: its own, else that of what it is cloned from.
    fn user(&self, block: &Block) -> Option<User> {
        let mut seen = HashSet::new();
        let mut block = block;
        loop {
            if let Some(user) = block.block("user") {
                let label = user.label.as_ref()?;
                let uid = match read(user, "uid") {
                    Some(uid) => uid,
                    None if label.text == "root" => 0,
                    None => UID,
                };
                return Some(User {
                    name: label.text.clone(),
                    uid,
                    at: user.at.clone(),
                });
            }
            let source = block.block("clone-from")?.name();
            if !seen.insert(source) {
                return None;
            }
            block = self.declared.get(source)?;
        }
    }

    /// What was read on the way.
    pub(super) fn into_read(self) -> Vec<Read> {
        let files = self
            .contents
            .into_iter()
            .map(|(path, content)| Read::File(path, content.digest));
        let folders = self
            .trees
            .into_iter()
            .map(|((path, _), entries)| Read::Folder(path, entries));
        files.chain(folders).collect()
    }

    fn files(
        &mut self,
        block: &Block,
        user: Option<&User>,
        problems: &mut Problems,
    ) -> Option<BTreeMap<GuestPath, File>> {
        let mut files = BTreeMap::new();
        let mut complete = true;
        for inner in block.blocks("file") {
            match self.file(inner, user, problems) {
                Some((path, file)) => {
                    files.insert(path, file);
                }
                None => complete = false,
            }
        }
        complete.then_some(files)
    }

    fn file(&mut self, block: &Block, user: Option<&User>, problems: &mut Problems) -> Option<(GuestPath, File)> {
        let path = label_path(block);
        let state = if let Some(value) = block.value("content") {
            FileState::Content(Content::inline(value.text.clone().into_bytes()))
        } else if let Some(value) = block.value("source") {
            let (real, content) = self.content(value, problems)?;
            self.is_from(FieldKind::File, block, real);
            FileState::Content(content)
        } else if let Some(value) = block.value("secret") {
            FileState::Secret(value.text.clone())
        } else if block.is_true("absent") {
            FileState::Absent
        } else {
            return None;
        };
        let path = path?;
        let usual = if matches!(state, FileState::Secret(_)) {
            Mode::SECRET
        } else {
            Mode::FILE
        };
        let file = File {
            mode: match block.value("mode") {
                Some(value) => value.text.parse().ok()?,
                None => usual,
            },
            owner: owner(block, &path, user),
            when: match block.text("when") {
                Some("create") => When::Create,
                _ => When::Always,
            },
            at: block.at.clone(),
            state,
        };
        Some((path, file))
    }

    fn is_from(&mut self, kind: FieldKind, block: &Block, path: PathBuf) {
        let at = block.at.clone();
        self.sources
            .insert((kind, block.name().to_owned()), Sourced { path, at });
    }

    /// The contents that a `source` names, and its real path.
    fn content(&mut self, value: &Value, problems: &mut Problems) -> Option<(PathBuf, Content)> {
        let real = self.locate(value, Kind::File, problems)?;
        if let Some(content) = self.contents.get(&real) {
            return Some((real, content.clone()));
        }
        match files::content(&real) {
            Ok(Some(content)) => {
                self.contents.insert(real.clone(), content.clone());
                Some((real, content))
            }
            Ok(None) => {
                problems.push(
                    Diagnostic::new(
                        "spec::source-too-large",
                        format!("\"{}\" has more than {} MiB", value.text, files::SOURCE_LIMIT >> 20),
                        &value.at,
                        "too large",
                    )
                    .with_help("mount its folder, or fetch it in a run step"),
                );
                None
            }
            Err(error) => {
                problems.push(
                    Diagnostic::new(
                        "spec::unreadable",
                        format!("\"{}\" cannot be read: {}", value.text, super::include::plain(&error)),
                        &value.at,
                        "here",
                    )
                    .with_help("name something that can be read"),
                );
                None
            }
        }
    }

    fn locate(&self, value: &Value, kind: Kind, problems: &mut Problems) -> Option<PathBuf> {
        use crate::spec::language::Type;
        use crate::spec::syntax::Scalar;
        // What is no path has been reported with the values.
        if value.scalar == Scalar::Invalid || Type::Source.check(&value.text).is_err() {
            return None;
        }
        match self.folders.locate(value, kind) {
            Ok(real) => Some(real),
            Err(diagnostic) => {
                problems.push(*diagnostic);
                None
            }
        }
    }

    fn trees(
        &mut self,
        block: &Block,
        user: Option<&User>,
        problems: &mut Problems,
    ) -> Option<BTreeMap<GuestPath, Tree>> {
        let mut trees = BTreeMap::new();
        let mut complete = true;
        for inner in block.blocks("tree") {
            match self.tree(inner, user, problems) {
                Some((path, tree)) => {
                    trees.insert(path, tree);
                }
                None => complete = false,
            }
        }
        complete.then_some(trees)
    }

    fn tree(&mut self, block: &Block, user: Option<&User>, problems: &mut Problems) -> Option<(GuestPath, Tree)> {
        let path = label_path(block)?;
        let source = block.value("source")?;
        let folder = self.locate(source, Kind::Folder, problems)?;
        self.is_from(FieldKind::Tree, block, folder.clone());
        let exclude: Vec<String> = block.values("exclude").iter().map(|value| value.text.clone()).collect();
        let key = (folder, exclude);
        let entries = match self.trees.get(&key) {
            Some(entries) => entries.clone(),
            None => {
                let entries = trees::read(&key.0, &path, source, &key.1, problems)?;
                self.trees.insert(key.clone(), entries.clone());
                entries
            }
        };
        let tree = Tree {
            entries,
            owner: owner(block, &path, user),
            delete: block.is_true("delete"),
            exclude: key.1,
            at: block.at.clone(),
        };
        Some((path, tree))
    }

    fn run(&mut self, block: &Block, problems: &mut Problems) -> Option<Vec<Run>> {
        let mut steps = Vec::new();
        let mut complete = true;
        for inner in block.blocks("run") {
            match self.step(inner, problems) {
                Some(step) => steps.push(step),
                None => complete = false,
            }
        }
        complete.then_some(steps)
    }

    fn step(&mut self, block: &Block, problems: &mut Problems) -> Option<Run> {
        let script = if let Some(command) = block.text("command") {
            Script::Command(command.to_owned())
        } else {
            let value = block.value("script")?;
            let (real, content) = self.content(value, problems)?;
            self.is_from(FieldKind::Run, block, real);
            if content.size > SCRIPT_LIMIT {
                problems.push(
                    Diagnostic::new(
                        "spec::source-too-large",
                        format!("\"{}\" has more than {} MiB", value.text, SCRIPT_LIMIT >> 20),
                        &value.at,
                        "too large for a script",
                    )
                    .with_help("copy the data with \"file\" or \"tree\", and run a short script on it"),
                );
                return None;
            }
            Script::File {
                name: value.text.clone(),
                content,
            }
        };
        Some(Run {
            name: StepName::new(block.name()).ok()?,
            script,
            user: block.text("user").map(str::to_owned),
            timeout: read(block, "timeout").unwrap_or(RUN_TIMEOUT),
            on_change: block.text("on-change").and_then(|path| GuestPath::new(path).ok()),
            at: block.at.clone(),
        })
    }

    fn mounts(&mut self, block: &Block, problems: &mut Problems) -> Option<BTreeMap<GuestPath, Mount>> {
        let mut mounts = BTreeMap::new();
        let mut complete = true;
        for inner in block.blocks("mount") {
            let source = inner
                .value("source")
                .and_then(|value| self.locate(value, Kind::Any, problems));
            match (label_path(inner), source) {
                (Some(path), Some(source)) => {
                    let readonly = inner.is_true("readonly");
                    mounts.insert(path, workspace::mount(source, readonly, &self.folders.spec, &inner.at));
                }
                _ => complete = false,
            }
        }
        complete.then_some(mounts)
    }

    fn policy(&self, own: &Block) -> Option<Policy> {
        let (name, block) = match &own.label {
            Some(label) => (Some(label.text.clone()), self.egress.get(&label.text)?),
            None => (None, own),
        };
        let mode = match block.text("mode") {
            Some("unrestricted") => EgressMode::Unrestricted,
            Some("agent") => EgressMode::Agent,
            Some("none") => EgressMode::None,
            _ => EgressMode::Allowlist,
        };
        let mut allow: Vec<EgressRule> = block.blocks("allow").filter_map(rule).collect();
        if mode == EgressMode::Agent {
            let at = block.value("mode").map_or(&block.at, |mode| &mode.at);
            allow.extend(preset_rules(at));
        }
        Some(Policy {
            name,
            mode,
            allow,
            enforce: match block.text("enforce") {
                Some("host") => Some(Enforcement::Host),
                Some("guest") => Some(Enforcement::Guest),
                _ => None,
            },
            at: own.at.clone(),
        })
    }
}

fn origin(block: &Block) -> Option<Origin> {
    if let Some(image) = block.value("image") {
        return Some(Origin::Image {
            name: image.text.clone(),
            at: image.at.clone(),
        });
    }
    let clone = block.block("clone-from")?;
    let on_stale = clone.text("on-stale");
    Some(Origin::Clone {
        sandbox: SandboxName::new(clone.name()).ok()?,
        snapshot: match clone.text("snapshot") {
            Some(name) => Some(SnapshotName::new(name).ok()?),
            None => None,
        },
        on_stale: if on_stale == Some("replace") {
            OnStale::Replace
        } else {
            OnStale::Keep
        },
        on_stale_explicit: on_stale.is_some(),
        at: clone.at.clone(),
    })
}

/// The owner as written, else the sandbox's user at and below their home, else root.
fn owner(block: &Block, path: &GuestPath, user: Option<&User>) -> Owner {
    let usual = user
        .filter(|user| {
            let home = user.home();
            *path == home || path.below(&home).is_some()
        })
        .map_or(Owner::ROOT, User::owner);
    let uid: Option<u32> = read(block, "owner");
    let gid: Option<u32> = read(block, "group");
    Owner {
        uid: uid.unwrap_or(usual.uid),
        gid: gid.or(uid).unwrap_or(usual.gid),
    }
}

fn ready(block: &Block) -> Ready {
    Ready {
        command: block.text("command").map(str::to_owned),
        timeout: read(block, "timeout").unwrap_or(READY_TIMEOUT),
        at: block.at.clone(),
    }
}

fn volume(block: &Block) -> Option<(String, Volume)> {
    let path = GuestPath::new(block.text("path")?).ok()?;
    let volume = Volume {
        path,
        size: placed::<Bytes>(block, "size"),
        at: block.at.clone(),
    };
    Some((block.name().to_owned(), volume))
}

fn port(block: &Block) -> Option<Port> {
    let number = block.name().parse().ok()?;
    let protocol = match block.text("protocol") {
        Some("udp") => Protocol::Udp,
        _ => Protocol::Tcp,
    };
    Some(Port {
        guest: GuestPort { number, protocol },
        host: read(block, "host").unwrap_or(number),
        at: block.at.clone(),
    })
}

fn ignored(block: &Block) -> Option<Ignored> {
    Some(Ignored {
        field: block.name().parse::<Field>().ok()?,
        until: block.text("until").and_then(|date| date.parse::<Date>().ok()),
        reason: block.text("reason").map(str::to_owned),
        at: block.at.clone(),
    })
}

fn rule(block: &Block) -> Option<EgressRule> {
    Some(EgressRule {
        to: match block.text("sandbox") {
            // Which of them, where it is counted, is settled when all are known.
            Some(name) => Destination::Sandbox(SandboxName::new(name).ok()?),
            None => destination(block.name()).ok()?,
        },
        ports: block.text("port").and_then(ports),
        protocol: match block.text("protocol") {
            Some("tcp") => Some(Protocol::Tcp),
            Some("udp") => Some(Protocol::Udp),
            _ => None,
        },
        preset: false,
        at: block.at.clone(),
    })
}

fn preset_rules(at: &Place) -> impl Iterator<Item = EgressRule> {
    let openings = agent_preset().iter().flat_map(|entry| &entry.open);
    openings.map(|opening| EgressRule {
        to: opening.to.clone(),
        ports: opening.ports,
        protocol: opening.protocol,
        preset: true,
        at: at.clone(),
    })
}

/// Takes out of every tree what other files and trees stand for: what is declared on its own wins.
fn leave_room(files: &BTreeMap<GuestPath, File>, trees: &mut BTreeMap<GuestPath, Tree>, problems: &mut Problems) {
    let declared: Vec<(GuestPath, Place)> = files
        .iter()
        .map(|(path, file)| (path.clone(), file.at.clone()))
        .chain(trees.iter().map(|(path, tree)| (path.clone(), tree.at.clone())))
        .collect();
    for (root, tree) in trees {
        for (path, place) in &declared {
            let Some(relative) = path.below(root) else { continue };
            let below = format!("{relative}/");
            tree.entries.remove(relative);
            let inside: Vec<String> = tree
                .entries
                .range(below.clone()..)
                .map(|(entry, _)| entry)
                .take_while(|entry| entry.starts_with(&below))
                .cloned()
                .collect();
            inside.iter().for_each(|entry| drop(tree.entries.remove(entry)));
            // A folder on the way to it must be one.
            let mut above = relative;
            while let Some((parent, _)) = above.rsplit_once('/') {
                if !matches!(tree.entries.get(parent), None | Some(Entry::Directory)) {
                    problems.push(
                        Diagnostic::new(
                            "spec::path-clash",
                            format!("\"{path}\" cannot lie below \"{root}/{parent}\", which is not a folder in the tree's source"),
                            place,
                            "declared here",
                        )
                        .with_mark(&tree.at, "in this tree")
                        .with_help("exclude it from the tree, or move one of the two"),
                    );
                    break;
                }
                above = parent;
            }
        }
    }
}
