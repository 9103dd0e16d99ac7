//! Outbound network policy inside the guest: rules of nftables, loaded before the network is up, and pinned names in
//! `/etc/hosts`. For backends, and spots, without control of the host. Best effort: root inside can undo it.
//!
//! It stands on what every backend can do: files, commands, and whether an instance runs. What is in force is read from
//! the guest's files, and where it runs from its packet filter, so that an edit by hand is found out.
//!
//! Nothing is ever installed: that would take an open network. A guest without the program nft is refused.

mod boot;
mod hosts;
mod pixels;
mod rules;

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;

use super::nft::words;
use super::{Account, Error, ErrorKind, Exec, ExecOpts, FileChange, Files, Observe, Output, ReadFiles, Result};
use crate::model::{
    Content, Enforcement, Fault, GuestPath, Inspection, InstanceName, LivePolicy, LookInside, Mode, Owner,
    PinnedPolicy, Query, Shape, Status,
};
use boot::Boot;

/// Where the rules are.
pub(super) const RULES: &str = "/etc/sbx-apply/egress.nft";
const HOSTS: &str = "/etc/hosts";
/// Where a guest may have the program.
const PROGRAMS: [&str; 6] = [
    "/usr/sbin/nft",
    "/usr/bin/nft",
    "/sbin/nft",
    "/bin/nft",
    "/usr/local/sbin/nft",
    "/usr/local/bin/nft",
];
/// How long a command inside may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a guest that has just started may take until it runs commands.
const READY: Duration = Duration::from_secs(60);

/// A backend with guests that rules can be put in.
#[async_trait]
pub(super) trait Guests: Observe + Files + Exec {
    /// Has nft(8), at a place inside, load the file of rules, in a guest that runs. Where commands reach a guest by its
    /// network, that may cut what they come by.
    async fn load(&self, name: &InstanceName, program: &str) -> Result<()> {
        act(self, name, &[program, "-f", RULES]).await
    }
}

/// Puts a policy in force inside. Of a guest that does not run, it is so from its next start on.
///
/// # Errors
/// [`ErrorKind::Unsupported`] where the guest has no program nft, or no init that could load rules before its network.
pub(super) async fn put<B: Guests + ?Sized>(backend: &B, name: &InstanceName, policy: &PinnedPolicy) -> Result<()> {
    let text = rules::file(policy)?;
    let found = look(backend, name).await?;
    let program = program(&found)?;
    let boot = Boot::of(&found)?;
    // What loads the rules comes before them: a guest that cannot load what it should does not come up.
    let mut changes = boot.changes(&found, &program)?;
    changes.extend(hosts::change(&found, Some(policy))?);
    let rules_file = write(RULES, text, Mode::FILE);
    changes.extend(Some(rules_file).filter(|change| !stands(&found, change)));
    if !changes.is_empty() {
        backend.change_files(name, &changes).await?;
    }
    let running = backend.get(name).await?.status == Status::Running;
    if running {
        backend.ready(name, READY).await?;
        let table = table(backend, name, &program, rules::TABLE).await?;
        if table.is_none_or(|found| words(&found) != words(&rules::table(policy))) {
            backend.load(name, &program).await?;
        }
    }
    let leftovers = pixels::removals(&found);
    if !leftovers.is_empty() {
        backend.change_files(name, &leftovers).await?;
        if running {
            act(backend, name, &[&program, &rules::without(pixels::TABLE)]).await?;
        }
    }
    Ok(())
}

/// Lifts whatever policy is in force inside; nothing where there is none.
pub(super) async fn lift<B: Guests + ?Sized>(backend: &B, name: &InstanceName) -> Result<()> {
    let found = look(backend, name).await?;
    let mut changes = Vec::new();
    let ours = found.get(&path(RULES)).is_some();
    let others = pixels::removals(&found);
    changes.extend(boot::removals(&found)?);
    changes.extend(hosts::change(&found, None)?);
    changes.extend(ours.then(|| FileChange::Remove { path: path(RULES) }));
    changes.extend(others.iter().cloned());
    if changes.is_empty() {
        return Ok(());
    }
    backend.change_files(name, &changes).await?;
    if let Ok(program) = program(&found)
        && backend.get(name).await?.status == Status::Running
    {
        let tables = [(ours, rules::TABLE), (!others.is_empty(), pixels::TABLE)];
        for (_, table) in tables.into_iter().filter(|(there, _)| *there) {
            act(backend, name, &[&program, &rules::without(table)]).await?;
        }
    }
    Ok(())
}

/// What is in force inside, and why nothing could be. Changes nothing; in a guest that runs, nft(8) is asked.
pub(super) async fn read<B>(backend: &B, name: &InstanceName) -> Result<LookInside>
where
    B: Observe + ReadFiles + Exec + ?Sized,
{
    let found = look(backend, name).await?;
    let program = program(&found);
    let lacks = program.as_ref().err().or(Boot::of(&found).as_ref().err()).map(said);
    let of_file = text_at(&found, RULES).and_then(rules::read);
    let is_pixels = of_file.is_none() && pixels::is_there(&found);
    if of_file.is_none() && !is_pixels {
        return Ok(LookInside { policy: None, lacks });
    }
    let running = backend.get(name).await?.status == Status::Running;
    let ask = async |table_name: &str| match &program {
        Ok(program) if running => table(backend, name, program, table_name).await.map(Some),
        _ => Ok(None),
    };
    let policy = match of_file {
        Some(policy) => {
            let fault = fault(&found, &policy);
            let fault = match fault {
                None => match ask(rules::TABLE).await {
                    Ok(None) => None,
                    Ok(Some(None)) => Some("its packet filter has no such rules".to_owned()),
                    Ok(Some(Some(found))) => (words(&found) != words(&rules::table(&policy)))
                        .then(|| "its packet filter has other rules".to_owned()),
                    Err(error) => Some(format!("its packet filter cannot be read: {error}")),
                },
                fault => fault,
            };
            Some(LivePolicy {
                policy,
                fault: fault.map(Fault::live),
            })
        }
        None => pixels::live(&found, ask(pixels::TABLE).await.ok().flatten()),
    };
    Ok(LookInside { policy, lacks })
}

fn said(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    }
}

/// What is wrong with the files that keep a policy.
fn fault(found: &Inspection, policy: &PinnedPolicy) -> Option<String> {
    let program = match program(found) {
        Ok(program) => program,
        Err(error) => return Some(error.to_string()),
    };
    let Ok(text) = rules::file(policy) else {
        return Some(format!("its {RULES} is not as it was written"));
    };
    if !stands(found, &write(RULES, text, Mode::FILE)) {
        return Some(format!("its {RULES} is not as it was written"));
    }
    let boot = Boot::of(found).and_then(|boot| boot.changes(found, &program));
    match boot {
        Ok(changes) if changes.is_empty() => {}
        Ok(changes) => return Some(format!("its {} does not load the rules", changes[0].path())),
        Err(error) => return Some(error.to_string()),
    }
    match hosts::change(found, Some(policy)) {
        Ok(None) => None,
        _ => Some(format!("its {HOSTS} does not have the pinned names")),
    }
}

/// Everything of a guest's files that matters here.
async fn look<B: ReadFiles + ?Sized>(backend: &B, name: &InstanceName) -> Result<Inspection> {
    let all = [RULES, HOSTS]
        .iter()
        .chain(&PROGRAMS)
        .chain(&boot::PATHS)
        .chain(&pixels::PATHS);
    let query = Query {
        paths: all.map(|text| path(text)).collect(),
        // Nothing of ours is larger, and programs are not read.
        bound: Inspection::KEPT,
        ..Query::default()
    };
    backend.inspect(name, &query).await
}

fn program(found: &Inspection) -> Result<String> {
    let there = |text: &&&str| {
        let shape = found.get(&path(text)).map(|found| &found.shape);
        matches!(shape, Some(Shape::File { .. } | Shape::Symlink(_)))
    };
    let program = PROGRAMS.iter().find(there).map(|text| (*text).to_owned());
    program.ok_or_else(|| {
        Error::unsupported("it has no program nft, which rules inside the guest need")
            .with_hint("use an image with the package nftables: nothing is installed over an open network")
    })
}

/// A table of a running guest's, as nft(8) in there prints it.
async fn table<B: Exec + ?Sized>(
    backend: &B,
    name: &InstanceName,
    program: &str,
    table: &str,
) -> Result<Option<String>> {
    let output = command(backend, name, &[program, "-s", "list", "table", "inet", table]).await?;
    let why = first_line(&output);
    match output.code {
        0 => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        _ if why.contains("No such file or directory") => Ok(None),
        code => Err(Error::new(
            ErrorKind::Failed,
            format!("nft inside ended with {code}: {why}"),
        )),
    }
}

/// Runs a command that must succeed.
async fn act<B: Exec + ?Sized>(backend: &B, name: &InstanceName, words: &[&str]) -> Result<()> {
    let output = command(backend, name, words).await?;
    match output.code {
        0 => Ok(()),
        code => Err(Error::new(
            ErrorKind::Failed,
            format!(
                "the rules inside could not be changed: nft ended with {code}: {}",
                first_line(&output)
            ),
        )),
    }
}

async fn command<B: Exec + ?Sized>(backend: &B, name: &InstanceName, words: &[&str]) -> Result<Output> {
    let opts = ExecOpts {
        command: words.iter().map(|word| (*word).to_owned()).collect(),
        account: Account::root(),
        env: Default::default(),
        timeout: Some(PATIENCE),
    };
    backend.output(name, &opts).await
}

/// What the guest says, which may be anything.
fn first_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn path(text: &str) -> GuestPath {
    GuestPath::trusted(text.to_owned())
}

/// The text of a file that is small; none where there is no such file.
fn text_at<'a>(found: &'a Inspection, at: &str) -> Option<&'a str> {
    match &found.get(&path(at))?.shape {
        Shape::File {
            content: Some(bytes), ..
        } => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn write(at: &str, text: String, mode: Mode) -> FileChange {
    FileChange::Write {
        path: path(at),
        content: Content::inline(text.into_bytes()),
        mode,
        owner: Some(Owner::ROOT),
    }
}

fn link(at: &str, target: &str) -> FileChange {
    FileChange::Symlink {
        path: path(at),
        target: target.to_owned(),
        owner: Owner::ROOT,
    }
}

/// Whether a change has been made already.
fn stands(found: &Inspection, change: &FileChange) -> bool {
    let there = found.get(change.path());
    match (change, there.map(|there| &there.shape)) {
        (FileChange::Write { content, mode, .. }, Some(Shape::File { digest, .. })) => {
            let attributes = there.is_some_and(|there| there.mode == *mode && there.owner == Owner::ROOT);
            attributes && digest.as_ref() == Some(&content.digest)
        }
        (FileChange::Symlink { target, .. }, Some(Shape::Symlink(leads))) => target == leads,
        (FileChange::Remove { .. }, None) => true,
        _ => false,
    }
}

/// The enforcement that all of this is.
pub(super) const INSIDE: Enforcement = Enforcement::Guest;

/// The last part of a path.
fn file_name(text: &str) -> &str {
    Path::new(text)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}
