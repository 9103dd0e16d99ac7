//! From what is typed and what the environment says to what is meant.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Host;
use super::args::{self, Args, Color, Connection, Global};
use super::commands::Command;
use super::secrets::Caller;
use super::stdin::Stdin;
use crate::apply::{Clock, Process};
use crate::backend::Registry;
use crate::model::{BackendChoice, Field};
use crate::plan::saved::SavedOptions;
use crate::view::diagnostics::Style;
use crate::view::{Output, Sink};

/// What holds for the whole run.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// `--environment`.
    pub(super) environment: Option<String>,
    /// `--backend`.
    pub(super) backend: Option<String>,
    /// `--var`.
    pub(super) variables: Vec<(String, String)>,
    /// `--root`.
    pub(super) root: Option<PathBuf>,
    /// `--ignore`.
    pub(super) ignore: Vec<(String, Field)>,
    /// `--allow-unsafe-config`.
    pub(super) allow_unsafe_config: Vec<String>,
    /// The backends.
    pub(super) registry: Arc<Registry>,
    /// Where everything is written to.
    pub(super) output: Output,
    /// How diagnostics are drawn.
    pub(super) diagnostics: Style,
    /// Whether somebody is there to answer a question.
    pub(super) interactive: bool,
    /// The moment.
    pub(super) now: u64,
    /// Tells later moments.
    pub(super) clock: Clock,
    /// This process.
    pub(super) process: Process,
    /// Whether a process of the same realm lives.
    pub(super) is_alive: fn(&Process) -> bool,
    /// The caller's environment, for secrets, and for what commands are handed by name.
    pub(super) caller: Caller,
    /// Standard input.
    pub(super) stdin: Stdin,
    /// Which streams are terminals.
    pub(super) terminals: super::Terminals,
    /// Backend settings by their keys, as flags say.
    flags: BTreeMap<String, String>,
    /// Backend settings by their keys, as the environment says: for the backends that have them.
    ambient: BTreeMap<String, String>,
    /// Where the backend was when a kept plan was made: over flags, variables and the spec.
    pinned: Option<BTreeMap<String, String>>,
}

/// Backend settings that say who asks, and not where: a kept plan does not have them.
const WHO: [&str; 8] = [
    "config-dir",
    "client-certificate",
    "client-key",
    "server-certificate",
    "api-key",
    "api-key-file",
    "insecure",
    HOST_FROM,
];

/// The variable that holds the API key of a TrueNAS system.
const API_KEY: &str = "SBX_TRUENAS_API_KEY";

/// Says who has named the host that an API key is sent to: a spec or a kept plan alone must not.
const HOST_FROM: &str = "host-from";

/// Backend settings that say where a daemon is; one of them at a time.
const WHERE: [&str; 3] = ["socket", "remote", "url"];

/// Backend settings that the tool's own variables say: `SBX_` and the key.
const VARIABLES: [&str; 18] = [
    "socket",
    "remote",
    "project",
    "profile",
    "pool",
    "network",
    "url",
    "client-certificate",
    "client-key",
    "server-certificate",
    "host",
    "port",
    "username",
    "nic",
    "domain",
    "api-key-file",
    "insecure",
    "plain",
];

impl Settings {
    /// What the arguments and the host mean.
    pub(super) fn of(args: Args, host: Host) -> (Self, Command) {
        let Args {
            command,
            global,
            connection,
            root,
        } = args;
        trace(global.verbose);
        let output = output(&global, host.terminals, &host.variables, host.stdout, host.stderr);
        let style = Style {
            color: output.colored_messages(),
            width: width(host.terminals.stderr),
        };
        let interactive =
            host.terminals.stdin && host.terminals.stderr && !is_set(&host.variables, "CI") && !dumb(&host.variables);
        let settings = Self {
            environment: global.environment,
            backend: global.backend,
            variables: global.variables,
            root,
            ignore: global.ignore,
            allow_unsafe_config: global.allow_unsafe_config,
            registry: Arc::new(host.registry),
            output,
            diagnostics: style,
            interactive,
            now: host.now,
            clock: host.clock,
            process: host.process,
            is_alive: host.is_alive,
            flags: flags(connection),
            ambient: ambient(&host.variables),
            caller: Caller::new(host.variables),
            stdin: Stdin::new(host.stdin),
            terminals: host.terminals,
            pinned: None,
        };
        (settings, command)
    }

    /// Streams for when the arguments could not be read.
    pub(super) fn plain(host: Host) -> Output {
        let color = |terminal: bool| terminal && !is_set(&host.variables, "NO_COLOR") && !dumb(&host.variables);
        let (results, messages) = (color(host.terminals.stdout), color(host.terminals.stderr));
        Output::new(
            Sink {
                writer: host.stdout,
                color: results,
            },
            Sink {
                writer: host.stderr,
                color: messages,
            },
            false,
            false,
        )
    }

    /// The settings for a backend: flags over variables over the spec.
    pub(super) fn connection(&self, choice: &BackendChoice) -> BTreeMap<String, String> {
        let mut settings = choice.settings.clone();
        let known: Vec<&str> = self.registry.settings(&choice.name).collect();
        let ambient = self
            .ambient
            .iter()
            .filter(|(key, _)| known.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), value.clone()));
        over(&mut settings, ambient.collect());
        over(&mut settings, self.flags.clone());
        // Not among the ambient ones, which are shown where settings are.
        if let Some(key) = self
            .caller
            .variable(API_KEY)
            .filter(|key| !key.is_empty() && known.contains(&"api-key"))
        {
            settings.insert("api-key".to_owned(), key.to_owned());
        }
        if let Some(pinned) = &self.pinned {
            settings.retain(|key, _| WHO.contains(&key.as_str()));
            let pinned = pinned.iter().filter(|(key, _)| !WHO.contains(&key.as_str()));
            settings.extend(pinned.map(|(key, value)| (key.clone(), value.clone())));
        }
        let named = self.flags.get("host").or_else(|| self.ambient.get("host"));
        let by = named_by(named, settings.get("host"), self.pinned.is_some());
        if let Some(by) = by.filter(|_| known.contains(&HOST_FROM)) {
            settings.insert(HOST_FROM.to_owned(), by.to_owned());
        }
        settings
    }

    /// What to say where a variable of the environment goes before what the spec says of the place of the daemon: whoever
    /// reads the spec alone would look for it elsewhere.
    pub(super) fn passed_over(&self, choice: &BackendChoice) -> Option<String> {
        let is_typed = WHERE.iter().any(|key| self.flags.contains_key(*key));
        if is_typed || self.pinned.is_some() || !self.registry.settings(&choice.name).any(|key| key == WHERE[1]) {
            return None;
        }
        let is_set = |name: &str| self.caller.variable(name).is_some_and(|value| !value.is_empty());
        passed_over(&choice.settings, &self.ambient, is_set)
    }

    /// Where the backend is, without who asks there.
    pub(super) fn place(&self, choice: &BackendChoice) -> BTreeMap<String, String> {
        let mut settings = self.connection(choice);
        settings.retain(|key, _| !WHO.contains(&key.as_str()));
        settings
    }

    /// The same settings for applying a kept plan: how it was made is how it is made again.
    ///
    /// # Errors
    /// The flag that says something else than the plan.
    pub(super) fn pinned_to(&self, options: &SavedOptions) -> Result<Self, String> {
        let ignore: Vec<String> = self
            .ignore
            .iter()
            .map(|(sandbox, field)| format!("{sandbox}/{field}"))
            .collect();
        let contradicts = [
            (
                "--environment",
                self.environment.is_some() && self.environment != options.environment,
            ),
            ("--backend", self.backend.is_some() && self.backend != options.backend),
            (
                "--var",
                !self.variables.is_empty() && self.variables != options.variables,
            ),
            ("--ignore", !ignore.is_empty() && ignore != options.ignore),
        ];
        if let Some((flag, _)) = contradicts.into_iter().find(|(_, contradicts)| *contradicts) {
            return Err(flag.to_owned());
        }
        let elsewhere = |(key, value): &(&String, &String)| {
            !WHO.contains(&key.as_str()) && options.connection.get(*key) != Some(*value)
        };
        if let Some((key, _)) = self.flags.iter().find(elsewhere) {
            return Err(format!("--{key}"));
        }
        let ignore = options.ignore.iter().filter_map(|ignored| args::ignored(ignored).ok());
        Ok(Self {
            environment: options.environment.clone(),
            backend: options.backend.clone(),
            variables: options.variables.clone(),
            ignore: ignore.collect(),
            pinned: Some(options.connection.clone()),
            ..self.clone()
        })
    }
}

/// Who has named the host that a key would be sent to, where the caller has not: a kept plan, or the spec.
fn named_by(caller: Option<&String>, host: Option<&String>, kept: bool) -> Option<&'static str> {
    match (caller.is_some() && caller == host, kept) {
        (true, _) => None,
        (false, true) => Some("plan"),
        (false, false) => Some("spec"),
    }
}

/// What a spec says of the place of a daemon, where the environment says something else.
fn passed_over(
    spec: &BTreeMap<String, String>,
    ambient: &BTreeMap<String, String>,
    is_set: impl Fn(&str) -> bool,
) -> Option<String> {
    let (key, wanted) = WHERE.iter().find_map(|key| Some((*key, spec.get(*key)?)))?;
    let mut all = WHERE.iter().chain(["incus-dir"].iter());
    let (by, place) = all.find_map(|key| Some((*key, ambient.get(*key)?)))?;
    // The folder says where the socket is, and nothing of what is elsewhere.
    if (key, wanted) == (by, place) || (by == "incus-dir" && key != "socket") {
        return None;
    }
    let ours = format!("SBX_{}", by.to_uppercase());
    let variable = match by {
        "socket" if !is_set(&ours) => "INCUS_SOCKET",
        "incus-dir" => "INCUS_DIR",
        _ => &ours,
    };
    Some(format!(
        "note: {variable} goes before the spec: `{key} \"{wanted}\"` is passed over, and the daemon is the one at {place}"
    ))
}

/// Lays settings over others. Who says where the daemon is says all of it: an address from a weaker source
/// would contradict it.
fn over(settings: &mut BTreeMap<String, String>, nearer: BTreeMap<String, String>) {
    if WHERE.iter().any(|key| nearer.contains_key(*key)) {
        WHERE.iter().for_each(|key| drop(settings.remove(*key)));
    }
    // The folder says where the socket is.
    if nearer.contains_key("incus-dir") {
        settings.remove("socket");
    }
    settings.extend(nearer);
}

fn flags(connection: Connection) -> BTreeMap<String, String> {
    connection.given().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// What the environment says of backends: our own variables, over those of the incus client.
fn ambient(variables: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let get = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
    let mut settings = BTreeMap::new();
    let theirs = [
        ("INCUS_SOCKET", "socket"),
        ("INCUS_DIR", "incus-dir"),
        ("INCUS_CONF", "config-dir"),
    ];
    for (name, key) in theirs {
        if let Some(value) = get(name) {
            settings.insert(key.to_owned(), value);
        }
    }
    for (name, key) in [("SBX_LOCAL_STATE", "state"), ("XDG_DATA_HOME", "data")] {
        if let Some(value) = get(name) {
            settings.insert(key.to_owned(), value);
        }
    }
    let home = get("HOME").map(PathBuf::from).or_else(|| etcetera::home_dir().ok());
    if let Some(home) = home.as_ref().filter(|_| !settings.contains_key("data")) {
        // XDG Base Directory Specification.
        let folder = home.join(".local/share");
        settings.insert("data".to_owned(), folder.to_string_lossy().into_owned());
    }
    if let Some(home) = home.filter(|_| !settings.contains_key("config-dir")) {
        // Where the incus client keeps it; a folder that is not there is no error.
        let folder = home.join(".config/incus");
        settings.insert("config-dir".to_owned(), folder.to_string_lossy().into_owned());
    }
    let ours = VARIABLES.iter().filter_map(|key| {
        let name = format!("SBX_{}", key.to_uppercase().replace('-', "_"));
        Some(((*key).to_owned(), get(&name)?))
    });
    over(&mut settings, ours.collect());
    settings
}

/// How wide messages are drawn.
fn width(terminal: bool) -> usize {
    let usual = Style::default().width;
    if !terminal {
        return usual;
    }
    rustix::termios::tcgetwinsize(std::io::stderr()).map_or(usual, |size| usize::from(size.ws_col).clamp(40, usual))
}

fn is_set(variables: &BTreeMap<String, String>, name: &str) -> bool {
    variables
        .get(name)
        .is_some_and(|value| !value.is_empty() && value != "false" && value != "0")
}

fn dumb(variables: &BTreeMap<String, String>) -> bool {
    variables.get("TERM").is_some_and(|term| term == "dumb")
}

fn output(
    global: &Global,
    terminals: super::Terminals,
    variables: &BTreeMap<String, String>,
    stdout: Box<dyn std::io::Write + Send>,
    stderr: Box<dyn std::io::Write + Send>,
) -> Output {
    // https://no-color.org: any value but the empty one.
    let no_color = variables.get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = |terminal: bool| match global.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => terminal && !no_color && !dumb(variables),
    };
    // Requests that are told on the same stream would tear live lines apart.
    let live = terminals.stderr && global.verbose == 0 && !is_set(variables, "CI") && !dumb(variables);
    let (results, messages) = (color(terminals.stdout), color(terminals.stderr));
    Output::new(
        Sink {
            writer: stdout,
            color: results,
        },
        Sink {
            writer: stderr,
            color: messages,
        },
        global.quiet,
        live,
    )
}

/// Tells on standard error what is going on below, as often as `-v` was given.
fn trace(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => "sbx_apply=info",
        2 => "sbx_apply=debug",
        _ => "sbx_apply=trace,info",
    };
    // A second run in one process, as tests have, keeps the first one's.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn our_variables_stand_over_the_clients() {
        let found = ambient(&map(&[
            ("INCUS_SOCKET", "/a"),
            ("INCUS_CONF", "/c"),
            ("SBX_REMOTE", "far"),
            ("SBX_CLIENT_KEY", "k"),
            ("SBX_POOL", ""),
            ("HOME", "/home/bob"),
        ]));
        assert_eq!(
            found,
            map(&[
                ("remote", "far"),
                ("config-dir", "/c"),
                ("client-key", "k"),
                ("data", "/home/bob/.local/share"),
            ])
        );
    }

    #[test]
    fn a_host_that_the_caller_has_not_named_is_somebody_elses() {
        let (a, b) = ("a".to_owned(), "b".to_owned());
        for (caller, host, kept, by) in [
            (None, &a, false, Some("spec")),
            (None, &a, true, Some("plan")),
            (Some(&a), &a, false, None),
            (Some(&a), &a, true, None),
            // A kept plan stands over what the caller says now.
            (Some(&a), &b, true, Some("plan")),
        ] {
            assert_eq!(named_by(caller, Some(host), kept), by, "{caller:?} {host} {kept}");
        }
    }

    #[test]
    fn what_a_variable_passes_over_is_told() {
        let told = |spec: &[(&str, &str)], ambient: &[(&str, &str)], set: &str| {
            passed_over(&map(spec), &map(ambient), |name| name == set)
        };
        let remote = [("remote", "far"), ("project", "p")];
        let said = told(&remote, &[("socket", "/s")], "INCUS_SOCKET").expect("told");
        assert!(
            said.starts_with("note: INCUS_SOCKET ") && said.contains("`remote \"far\"`") && said.contains(" /s"),
            "{said}"
        );
        let said = told(&remote, &[("remote", "near")], "SBX_REMOTE").expect("told");
        assert!(said.starts_with("note: SBX_REMOTE "), "{said}");
        let said = told(&[("socket", "/a")], &[("incus-dir", "/d")], "INCUS_DIR").expect("told");
        assert!(said.starts_with("note: INCUS_DIR "), "{said}");
        for ambient in [("remote", "far"), ("incus-dir", "/d"), ("project", "q")] {
            assert_eq!(told(&remote, &[ambient], ""), None, "{ambient:?}");
        }
        assert_eq!(told(&[("project", "p")], &[("socket", "/s")], "INCUS_SOCKET"), None);
    }

    #[test]
    fn who_says_where_says_all_of_it() {
        let mut settings = map(&[("remote", "far"), ("project", "p")]);
        over(&mut settings, map(&[("socket", "/s")]));
        assert_eq!(settings, map(&[("socket", "/s"), ("project", "p")]));
        over(&mut settings, map(&[("incus-dir", "/d")]));
        assert_eq!(settings, map(&[("incus-dir", "/d"), ("project", "p")]));
    }
}
