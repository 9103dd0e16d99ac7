//! The steps, in their order.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::model::{
    BackendChoice, Desired, Destination, Diagnostic, EgressRule, EnvironmentName, Place, Protocol, SandboxName, Secrets,
};
use crate::spec::decode::{Block, Content};
use crate::spec::language::Type;
use crate::spec::load::Request;
use crate::spec::problems::Problems;
use crate::spec::source::Sources;
use crate::spec::suggest::unknown;
use crate::spec::validate;

use super::build::Builder;
use super::include::{self, Gathered};
use super::layers::{merge, weight};
use super::{variables, workspace};

/// A sandbox as declared, its layers merged.
#[derive(Debug)]
pub(crate) struct Declared {
    /// What it holds.
    pub block: Block,
    /// How many there are, where the spec says so.
    pub count: Option<u64>,
}

/// How many sandboxes one spec may have, counts expanded.
const SANDBOX_LIMIT: u64 = 5_000;
/// How many bytes the texts of all sandboxes may have together, layers and counts expanded.
const TEXT_LIMIT: u64 = 256 << 20;
/// How many `depends-on` one spec may have, counts expanded.
const DEPENDENCY_LIMIT: u64 = 1_000_000;
/// Openings of egress policies, where a count is opened to a count.
const RULE_LIMIT: u64 = 1_000_000;
/// How many entries the trees of all sandboxes may have together, counts expanded.
const ENTRY_LIMIT: u64 = 1_000_000;

/// Everything that the files of a spec declare.
struct All {
    defaults: Option<Block>,
    templates: IndexMap<String, Block>,
    egress: IndexMap<String, Block>,
    sandboxes: IndexMap<String, Block>,
    environment: Option<crate::spec::syntax::Value>,
    backend: Option<Block>,
}

/// Works a request out. None, or something built from what is left, where there are problems.
pub(crate) fn desired(request: &Request, sources: &mut Sources, problems: &mut Problems) -> Option<Desired> {
    let mut gathered = include::gather(request, sources, problems)?;
    let incomplete = gathered.incomplete;
    variables::expand(&mut gathered.documents, incomplete, request, sources, problems);
    for document in &gathered.documents {
        validate::values(&document.block, true, problems);
        validate::rules(&document.block, problems);
        validate::config(&document.block, &request.allow_unsafe_config, problems);
    }
    let (start, flawed) = gathered
        .documents
        .last()
        .map(|root| (root.block.at.clone(), root.block.flawed))?;
    let mut all = collect(&mut gathered, problems);
    let environment = environment(request, &all, (&start, flawed), problems);
    let backend = backend(request, &all, &start, problems);
    let sandboxes = declared(&mut all, incomplete, problems)?;
    for sandbox in &sandboxes {
        validate::layered(&sandbox.block, problems);
        validate::paths(&sandbox.block, problems);
        egress_name(&sandbox.block, &all, incomplete, problems);
    }
    if !incomplete {
        validate::references(&sandboxes, environment.as_ref(), problems);
        validate::peers(&sandboxes, &all.egress, problems);
    }
    validate::cycles(&sandboxes, problems);
    let built = expand(&sandboxes, &all, &gathered, sources, problems)?;
    Some(Desired {
        environment: environment?,
        backend: backend?,
        sandboxes: built,
        secrets: Secrets::default(),
        files: gathered.folders.spec,
    })
}

/// Puts what the files declare together. A name that two files declare is an error, as in one.
fn collect(gathered: &mut Gathered, problems: &mut Problems) -> All {
    let mut all = All {
        defaults: None,
        templates: IndexMap::new(),
        egress: IndexMap::new(),
        sandboxes: IndexMap::new(),
        environment: None,
        backend: None,
    };
    let mut twice = |what: &str, first: &Place, second: &Place| {
        problems.push(
            Diagnostic::new(
                "spec::duplicate-name",
                format!("{what} declared twice"),
                second,
                "again here",
            )
            .with_mark(first, "first here")
            .with_help("keep one of the two, or give one of them another name"),
        );
    };
    for document in &mut gathered.documents {
        for entry in std::mem::take(&mut document.block.entries) {
            let name = entry.form.name;
            match entry.content {
                Content::Value(value) if name == "environment" => all.environment = Some(value),
                Content::Block(block) => {
                    let map = match name {
                        "backend" => {
                            all.backend = Some(block);
                            continue;
                        }
                        "defaults" => {
                            match &all.defaults {
                                Some(first) => twice("\"defaults\" are", &first.at, &block.at),
                                None => all.defaults = Some(block),
                            }
                            continue;
                        }
                        "template" => &mut all.templates,
                        "egress" => &mut all.egress,
                        "sandbox" => &mut all.sandboxes,
                        _ => continue,
                    };
                    match map.get(block.name()) {
                        Some(first) => {
                            let what = format!("{name} \"{}\" is", block.name());
                            twice(&what, first.label_at(), block.label_at());
                        }
                        None => {
                            map.insert(block.name().to_owned(), block);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    all
}

fn environment(
    request: &Request,
    all: &All,
    (start, flawed): (&Place, bool),
    problems: &mut Problems,
) -> Option<EnvironmentName> {
    if let Some(name) = &request.environment {
        return match Type::Name.check(name) {
            Ok(()) => EnvironmentName::new(name.as_str()).ok(),
            Err(complaint) => {
                problems.push(
                    Diagnostic::new(complaint.code, complaint.message, &Place::nowhere(), "--environment")
                        .with_help(complaint.help),
                );
                None
            }
        };
    }
    match &all.environment {
        // What the file does not have may be what it misspells.
        None if flawed => None,
        Some(value) => EnvironmentName::new(value.text.as_str()).ok(),
        None => {
            problems.push(
                Diagnostic::new("spec::missing-environment", "this spec names no environment", start, "")
                    .with_help("begin the file with the environment's name, such as `environment \"demo\"` (KDL) or `environment: demo` (YAML)"),
            );
            None
        }
    }
}

fn backend(request: &Request, all: &All, start: &Place, problems: &mut Problems) -> Option<BackendChoice> {
    let declared = all.backend.as_ref().filter(|block| block.label.is_some());
    let mut choice = BackendChoice {
        name: declared.map_or("local", Block::name).to_owned(),
        settings: declared
            .map(|block| {
                block
                    .open
                    .iter()
                    .map(|(key, value)| (key.text.clone(), value.text.clone()))
                    .collect()
            })
            .unwrap_or_default(),
        at: declared.map_or(start, Block::label_at).clone(),
    };
    if let Some(name) = &request.backend {
        let names = || crate::spec::language::BACKENDS.iter().map(|backend| backend.name);
        if crate::spec::language::backend(name).is_none() {
            problems.push(
                Diagnostic::new(
                    "spec::unknown-backend",
                    unknown("backend", name, names()),
                    &Place::nowhere(),
                    "--backend",
                )
                .with_help(format!("the backends are {}", names().collect::<Vec<_>>().join(", "))),
            );
            return None;
        }
        if *name != choice.name {
            choice.settings = BTreeMap::new();
            choice.name.clone_from(name);
        }
    }
    Some(choice)
}

/// Merges the layers of every sandbox, which are taken out. None where that would take too much memory.
fn declared(all: &mut All, incomplete: bool, problems: &mut Problems) -> Option<Vec<Declared>> {
    let mut sandboxes = Vec::new();
    let mut number: u64 = 0;
    let mut bytes: u64 = 0;
    let weights: BTreeMap<&str, u64> = all
        .templates
        .iter()
        .map(|(name, block)| (name.as_str(), weight(block)))
        .collect();
    let defaults_weight = all.defaults.as_ref().map_or(0, weight);
    for block in std::mem::take(&mut all.sandboxes).into_values() {
        let mut layers: Vec<&Block> = all.defaults.iter().collect();
        let count = block.text("count").and_then(|count| count.parse::<u64>().ok());
        let mut own = weight(&block) + defaults_weight;
        for used in block.values("use") {
            match all.templates.get(&used.text) {
                Some(template) => {
                    layers.push(template);
                    own += weights.get(used.text.as_str()).copied().unwrap_or(0);
                }
                // What an unreadable file would have declared is not known.
                None if incomplete => {}
                None => problems.push(validate::undeclared(
                    "template",
                    used,
                    all.templates.keys().map(String::as_str),
                )),
            }
        }
        number = number.saturating_add(count.unwrap_or(1));
        bytes = bytes.saturating_add(own.saturating_mul(count.unwrap_or(1).max(1)));
        let at = block.value("count").map_or(block.label_at(), |value| &value.at);
        if number > SANDBOX_LIMIT {
            problems.push(
                Diagnostic::new(
                    "spec::too-many-sandboxes",
                    format!("this spec asks for more than {SANDBOX_LIMIT} sandboxes"),
                    at,
                    "with these it does",
                )
                .with_help("lower a count, or split the spec into several environments"),
            );
            return None;
        }
        if bytes > TEXT_LIMIT {
            problems.push(
                Diagnostic::new(
                    "spec::too-large",
                    format!(
                        "templates and counts make this spec larger than {} MiB",
                        TEXT_LIMIT >> 20
                    ),
                    at,
                    "with this it is",
                )
                .with_help("keep long contents in files of their own and name them with `source`"),
            );
            return None;
        }
        sandboxes.push(Declared {
            block: merge(&layers, block),
            count,
        });
    }
    Some(sandboxes)
}

fn egress_name(sandbox: &Block, all: &All, incomplete: bool, problems: &mut Problems) {
    let Some(name) = sandbox.block("egress").and_then(|policy| policy.label.as_ref()) else {
        return;
    };
    if all.egress.contains_key(&name.text) || incomplete {
        return;
    }
    let known = all.egress.keys().map(String::as_str);
    let mut diagnostic = validate::undeclared("egress policy", name, known);
    if ["none", "unrestricted", "agent", "allowlist"].contains(&name.text.as_str()) {
        diagnostic = diagnostic.with_help(format!(
            "\"{}\" is a mode, and this is the name of a policy: write egress with mode \"{}\" instead",
            name.text, name.text
        ));
    }
    problems.push(diagnostic);
}

/// Builds every sandbox and expands the counts.
fn expand(
    sandboxes: &[Declared],
    all: &All,
    gathered: &Gathered,
    sources: &mut Sources,
    problems: &mut Problems,
) -> Option<IndexMap<SandboxName, crate::model::Sandbox>> {
    let mut builder = Builder::new(sandboxes, &all.egress, &gathered.folders);
    let mut built = Vec::new();
    let mut entries = 0;
    for declared in sandboxes {
        let sandbox = builder.sandbox(&declared.block, problems);
        let own: u64 = sandbox
            .iter()
            .flat_map(|sandbox| sandbox.trees.values())
            .map(|tree| tree.entries.len() as u64)
            .sum();
        entries += own * declared.count.unwrap_or(1).max(1);
        if entries > ENTRY_LIMIT {
            problems.push(too_large(declared, "entries of trees", ENTRY_LIMIT));
            return None;
        }
        built.push((sandbox, declared));
    }
    if !problems.is_empty() {
        return None;
    }
    sources.read = builder.into_read();
    let names: BTreeMap<&str, Option<u64>> = sandboxes
        .iter()
        .map(|declared| (declared.block.name(), declared.count))
        .collect();
    let mut result = IndexMap::new();
    let (mut dependencies, mut rules) = (0, 0);
    for (sandbox, declared) in built {
        let mut sandbox = sandbox?;
        let mut depends_on = std::collections::BTreeSet::new();
        for needed in declared.block.values("depends-on") {
            match names.get(needed.text.as_str()) {
                Some(Some(count)) => {
                    depends_on
                        .extend((1..=*count).filter_map(|n| SandboxName::new(format!("{}-{n}", needed.text)).ok()));
                }
                _ => depends_on.extend(SandboxName::new(needed.text.as_str())),
            }
        }
        let times = declared.count.unwrap_or(1);
        dependencies += depends_on.len() as u64 * times;
        if dependencies > DEPENDENCY_LIMIT {
            problems.push(too_large(declared, "dependencies between sandboxes", DEPENDENCY_LIMIT));
            return None;
        }
        sandbox.depends_on = depends_on;
        if let Some(policy) = &mut sandbox.egress {
            let counts = policy
                .allow
                .iter()
                .map(|rule| count_of(rule, &names).map_or(1, |(_, count)| count));
            rules += counts.sum::<u64>() * times;
            if rules > RULE_LIMIT {
                problems.push(too_large(declared, "openings of egress policies", RULE_LIMIT));
                return None;
            }
            policy.allow = each_of(&policy.allow, &names);
        }
        let Some(count) = declared.count else {
            result.insert(sandbox.name.clone(), sandbox);
            continue;
        };
        for number in 1..=count {
            let mut copy = sandbox.clone();
            copy.name = SandboxName::new(format!("{}-{number}", sandbox.base)).ok()?;
            for port in &mut copy.ports {
                // All on one host: each takes the next port.
                match u16::try_from(u64::from(port.host) + number - 1) {
                    Ok(host) => port.host = host,
                    Err(_) => {
                        problems.push(
                            Diagnostic::new(
                                "spec::invalid-port",
                                format!("sandbox \"{}\" would need a port beyond 65535 on the host", copy.name),
                                &port.at,
                                "the first of the ports that the counted sandboxes take",
                            )
                            .with_help("each of a count takes the next port: start lower"),
                        );
                        return None;
                    }
                }
            }
            if let Some(policy) = &mut copy.egress {
                // Its siblings, where it opens all of its own count.
                policy.allow.retain(|rule| rule.to.sandbox() != Some(&copy.name));
            }
            result.insert(copy.name.clone(), copy);
        }
    }
    ports(&result, problems);
    workspace::nested(&result, problems);
    workspace::targets(&result, problems);
    Some(result)
}

/// The counted sandboxes that a rule opens by their base name, and how many.
fn count_of<'a>(rule: &'a EgressRule, counts: &BTreeMap<&str, Option<u64>>) -> Option<(&'a str, u64)> {
    let named = rule.to.sandbox()?.as_str();
    Some((named, (*counts.get(named)?)?))
}

/// The rules of a policy, where one that names a counted sandbox is one for each of them.
fn each_of(rules: &[EgressRule], counts: &BTreeMap<&str, Option<u64>>) -> Vec<EgressRule> {
    let mut all = Vec::new();
    for rule in rules {
        let Some((base, count)) = count_of(rule, counts) else {
            all.push(rule.clone());
            continue;
        };
        let names = (1..=count).filter_map(|number| SandboxName::new(format!("{base}-{number}")).ok());
        all.extend(names.map(|name| EgressRule {
            to: Destination::Sandbox(name),
            ..rule.clone()
        }));
    }
    all
}

fn too_large(declared: &Declared, what: &str, limit: u64) -> Diagnostic {
    Diagnostic::new(
        "spec::too-large",
        format!("counts make this spec ask for more than {limit} {what}"),
        declared.block.label_at(),
        "with this it does",
    )
    .with_help("lower a count, or split the spec into several environments")
}

/// One port of the host leads to one sandbox.
fn ports(sandboxes: &IndexMap<SandboxName, crate::model::Sandbox>, problems: &mut Problems) {
    let mut taken: BTreeMap<(u16, Protocol), (&SandboxName, &Place)> = BTreeMap::new();
    for (name, sandbox) in sandboxes {
        for port in &sandbox.ports {
            match taken.get(&(port.host, port.guest.protocol)) {
                Some((other, place)) => problems.push(
                    Diagnostic::new(
                        "spec::port-clash",
                        format!(
                            "port {} of the host is asked for by \"{other}\" and by \"{name}\"",
                            port.host
                        ),
                        &port.at,
                        "and here",
                    )
                    .with_mark(place, "here")
                    .with_help("give one of them another `host` port"),
                ),
                None => {
                    taken.insert((port.host, port.guest.protocol), (name, &port.at));
                }
            }
        }
    }
}
