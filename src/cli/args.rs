//! The arguments as they are typed.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, CommandFactory, FromArgMatches as _, Parser, ValueEnum};

use super::commands::Command;
use crate::model::Field;

const ABOUT: &str = "Bring sandboxes in line with a spec: plan the difference, then apply it.";

const EXAMPLES: &str = "\
Examples:
  sbx-apply plan                      what would change, for the spec in this folder
  sbx-apply check                     has anything drifted? for CI
  sbx-apply apply --yes               change it
  sbx-apply apply sbx.kdl --target base
  sbx-apply plan --json | jq .summary
  sbx-apply destroy                   delete all that the environment owns

Exit codes:
  0 done, or nothing to do   1 error   2 changes to apply   3 drift: see check
  4 refused, or consent is missing   130 interrupted

SPEC is a path, or - for standard input; without it, sbx.kdl or sbx.yaml in the current folder.
A daemon that no remote is configured for: --url, --client-certificate, --client-key and
--server-certificate, or SBX_URL, ….";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "sbx-apply",
    version,
    about = ABOUT,
    after_help = EXAMPLES,
    max_term_width = 100,
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
    /// What holds for every command.
    #[command(flatten)]
    pub(super) global: Global,
    /// How to reach the backend.
    #[command(flatten)]
    pub(super) connection: Connection,
    /// `--root DIR`, which is no flag of every command: see [`Args::read`].
    #[arg(skip)]
    pub(super) root: Option<PathBuf>,
}

/// `--root`, of the program and of every command that has no such flag of its own.
const ROOT: &str = "root";

impl Args {
    /// The definition, with `--root DIR` where it can stand: `exec` and `console` have a `--root` that means something
    /// else, so for them it stands before the command.
    pub(super) fn definition() -> clap::Command {
        with_root(<Self as CommandFactory>::command())
    }

    /// Reads arguments, the program's own name first.
    pub(super) fn read(arguments: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::definition().try_get_matches_from(arguments)?;
        let mut args = Self::from_arg_matches(&matches)?;
        let mut next = Some(&matches);
        while let Some(matches) = next {
            if let Ok(Some(root)) = matches.try_get_one::<PathBuf>(ROOT) {
                args.root = Some(root.clone());
            }
            next = matches.subcommand().map(|(_, matches)| matches);
        }
        Ok(args)
    }
}

fn with_root(command: clap::Command) -> clap::Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let taken = command.get_arguments().any(|arg| arg.get_long() == Some(ROOT));
    let mut command = names
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, with_root));
    if !taken {
        command = command.arg(
            Arg::new(ROOT)
                .long(ROOT)
                .value_name("DIR")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The folder that everything the spec reads must lie in [default: the spec's own]")
                .help_heading(EVERYWHERE),
        );
    }
    command
}

/// What flags of every command stand below, in help.
const EVERYWHERE: &str = "Options of every command";

/// Flags of every command.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = EVERYWHERE)]
pub(super) struct Global {
    /// Use this environment's name instead of the spec's
    #[arg(long, value_name = "E", global = true)]
    pub(super) environment: Option<String>,

    /// Use this backend instead of the spec's
    #[arg(long, value_name = "B", global = true)]
    pub(super) backend: Option<String>,

    /// Set a variable of the spec
    #[arg(long = "var", value_name = "N=V", value_parser = pair, global = true)]
    pub(super) variables: Vec<(String, String)>,

    /// Accept drift of a sandbox's field, such as base/file:/etc/hosts
    #[arg(long, value_name = "S/F", value_parser = ignored, global = true)]
    pub(super) ignore: Vec<(String, Field)>,

    /// Allow this key in `config`, although it may run code on the host
    #[arg(long, value_name = "KEY", global = true)]
    pub(super) allow_unsafe_config: Vec<String>,

    /// Use colours: auto (on a terminal, unless NO_COLOR is set), always, never
    #[arg(
        long,
        value_name = "WHEN",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true,
        global = true
    )]
    pub(super) color: Color,

    /// Say more on standard error: -v what is done, -vv each request
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub(super) verbose: u8,

    /// Say only what was asked for and what went wrong
    #[arg(short, long, conflicts_with = "verbose", global = true)]
    pub(super) quiet: bool,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

/// How to reach the backend: each setting by its flag, then by its `SBX_*` variable, then by the spec.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Connection, also by SBX_SOCKET, SBX_REMOTE, …")]
pub(super) struct Connection {
    /// Unix socket of the backend's daemon
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<String>,

    /// Remote of the incus client's configuration
    #[arg(long, value_name = "NAME", global = true)]
    remote: Option<String>,

    /// Project
    #[arg(long, value_name = "NAME", global = true)]
    project: Option<String>,

    /// Profile of new instances
    #[arg(long, value_name = "NAME", global = true)]
    profile: Option<String>,

    /// Storage pool of new instances
    #[arg(long, value_name = "NAME", global = true)]
    pool: Option<String>,

    /// Network of new instances
    #[arg(long, value_name = "NAME", global = true)]
    network: Option<String>,

    /// Host name or address of a TrueNAS system
    #[arg(long, value_name = "HOST", global = true)]
    host: Option<String>,

    /// Its HTTPS port
    #[arg(long, value_name = "PORT", hide = true, global = true)]
    port: Option<String>,

    /// User that the API key belongs to
    #[arg(long, value_name = "NAME", hide = true, global = true)]
    username: Option<String>,

    /// File with the API key; or give the key in SBX_TRUENAS_API_KEY
    #[arg(long, value_name = "FILE", global = true)]
    api_key_file: Option<String>,

    /// Take any certificate that it shows
    #[arg(long, global = true)]
    insecure: bool,

    /// Address of a daemon that is no configured remote
    #[arg(long, value_name = "URL", hide = true, global = true)]
    url: Option<String>,

    /// Client certificate for it
    #[arg(long, value_name = "FILE", hide = true, global = true)]
    client_certificate: Option<String>,

    /// Key of the client certificate
    #[arg(long, value_name = "FILE", hide = true, global = true)]
    client_key: Option<String>,

    /// PEM file with the one certificate that the backend may show
    #[arg(long, value_name = "FILE", hide = true, global = true)]
    server_certificate: Option<String>,
}

impl Connection {
    /// What was given, by the backend's own keys.
    pub(super) fn given(self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("socket", self.socket),
            ("remote", self.remote),
            ("project", self.project),
            ("profile", self.profile),
            ("pool", self.pool),
            ("network", self.network),
            ("host", self.host),
            ("port", self.port),
            ("username", self.username),
            ("api-key-file", self.api_key_file),
            ("insecure", self.insecure.then(|| "true".to_owned())),
            ("url", self.url),
            ("client-certificate", self.client_certificate),
            ("client-key", self.client_key),
            ("server-certificate", self.server_certificate),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("a variable is set as NAME=VALUE".to_owned()),
    }
}

pub(super) fn ignored(text: &str) -> Result<(String, Field), String> {
    let (sandbox, field) = text
        .split_once('/')
        .filter(|(sandbox, _)| !sandbox.is_empty())
        .ok_or("what is ignored is SANDBOX/FIELD, such as base/power")?;
    let field = field.parse::<Field>().map_err(|error| error.to_string())?;
    Ok((sandbox.to_owned(), field))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Args::definition().debug_assert();
    }

    #[test]
    fn an_ignored_field_may_hold_slashes() {
        let (sandbox, field) = ignored("base/file:/etc/hosts.mode").expect("a field");
        assert_eq!(
            (sandbox.as_str(), field.to_string().as_str()),
            ("base", "file:/etc/hosts.mode")
        );
        for bad in ["base", "/power", "base/nothing"] {
            assert!(ignored(bad).is_err(), "{bad}");
        }
    }
}
