//! One sandbox, as commands that work on a single one are told of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::Code;
use super::error::Error;
use super::session::SpecArg;
use super::settings::Settings;
use super::unknown::some;
use crate::apply::{look_inside, observe_scope, scope_of};
use crate::backend::{self, Account, ErrorKind, Reader};
use crate::model::{
    Desired, Diagnostic, EnvironmentName, Field, GuestPath, InstanceName, Labels, Live, LiveInstance, Owner, Ownership,
    Place, PolicyKey, Power, SandboxName, Status, User,
};
use crate::plan::{Matched, may_be_inside};
use crate::spec::{Loaded, nearest};

/// What was typed: a spec, or none, a sandbox, and what else the command wants.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) spec: SpecArg,
    pub(super) sandbox: String,
    /// As many as the command has names for.
    pub(super) rest: Vec<String>,
}

impl Named {
    /// Tells words apart. SPEC comes first and may be left out, so their number tells; `rest` are the names of those
    /// that follow the sandbox.
    pub(super) fn of(words: &[OsString], rest: &[&str]) -> Result<Self, Error> {
        let wanted = rest.len() + 1;
        let (spec, others) = match words.len() > wanted {
            true => (Some(PathBuf::from(&words[0])), &words[1..]),
            false => (None, words),
        };
        // A spec where the sandbox would stand: something was forgotten.
        let forgot = others.first().is_some_and(looks_like_a_spec);
        // Options may stand between the words, so that no parser has counted them all.
        if others.len() != wanted || forgot {
            let names: Vec<&str> = std::iter::once("SANDBOX").chain(rest.iter().copied()).collect();
            return Err(Error::usage(
                format!("what is wanted here is {}", names.join(" ")),
                "SPEC may stand before them; where it is left out, sbx.kdl or sbx.yaml in this folder is meant",
            ));
        }
        let text = |word: &OsString| {
            word.to_str().map(str::to_owned).ok_or_else(|| Error::Usage {
                message: format!("`{}` is no UTF-8", word.to_string_lossy()),
                hint: None,
            })
        };
        let mut texts = others.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            spec: SpecArg { spec },
            sandbox: texts.remove(0),
            rest: texts,
        })
    }
}

fn looks_like_a_spec(word: &OsString) -> bool {
    let extension = Path::new(word).extension().and_then(|extension| extension.to_str());
    word == "-" || matches!(extension, Some("kdl" | "yaml" | "yml"))
}

/// A sandbox that there is, and that is ours.
#[derive(Debug)]
pub(super) struct Found {
    /// Its name in the spec.
    pub(super) name: SandboxName,
    /// What it is.
    pub(super) instance: LiveInstance,
    environment: EnvironmentName,
    /// All that is within the environment's reach.
    live: Live,
}

/// Finds a sandbox by its labels, whether the spec still names it or not.
///
/// # Errors
/// [`Error::Refused`] where its name is held by what is not ours, and where two instances claim to be it;
/// [`Error::Usage`] where there is none.
pub(super) async fn find(reader: &dyn Reader, loaded: &Loaded, name: &str) -> Result<Found, Error> {
    find_made(reader, loaded, name).await?.ok_or_else(|| {
        Error::usage(
            format!("`{name}` is in the spec, but there is no such sandbox yet"),
            "make it with `sbx-apply apply`",
        )
    })
}

/// The same; none where the spec names it and it has not been made yet.
pub(super) async fn find_made(reader: &dyn Reader, loaded: &Loaded, name: &str) -> Result<Option<Found>, Error> {
    let desired = &loaded.desired;
    let mut scope = scope_of(desired);
    // One that the spec does not name may be there all the same, ours or not.
    let own = SandboxName::new(name).and_then(|name| InstanceName::of(&desired.environment, &name));
    scope.names.extend(own);
    let mut live = observe_scope(reader, &scope).await?;
    let capabilities = reader.capabilities();
    let inside = live.instances.values().filter(|instance| {
        let named = match instance.labels.ownership(&instance.name) {
            Ownership::Owned { sandbox, .. } if sandbox.as_str() == name => desired.sandboxes.get(&sandbox),
            Ownership::Owned { .. } => None,
            Ownership::Foreign => return false,
        };
        may_be_inside(named, instance, capabilities)
    });
    let inside = inside.map(|instance| instance.name.clone()).collect();
    look_inside(reader, &mut live, inside).await?;
    let found: Vec<&LiveInstance> = live
        .instances
        .values()
        .filter(|instance| match instance.labels.ownership(&instance.name) {
            Ownership::Owned { environment, sandbox } => environment == desired.environment && sandbox.as_str() == name,
            Ownership::Foreign => false,
        })
        .collect();
    match (&found[..], SandboxName::new(name)) {
        ([instance], Ok(name)) => Ok(Some(Found {
            name,
            instance: (*instance).clone(),
            environment: desired.environment.clone(),
            live,
        })),
        ([one, other, ..], _) => Err(refused(
            loaded,
            "plan::two-instances",
            format!("`{name}` has two instances: `{}` and `{}`", one.name, other.name),
            "delete one of them, or take its `sbx-apply` labels off",
        )),
        ([], Ok(sandbox)) => absent(loaded, &live, &sandbox).map_or(Ok(None), Err),
        _ => Err(unknown(desired, &live, name)),
    }
}

/// Why there is no such sandbox; none where it has not been made yet.
fn absent(loaded: &Loaded, live: &Live, sandbox: &SandboxName) -> Option<Error> {
    let desired = &loaded.desired;
    let taken = InstanceName::of(&desired.environment, sandbox)
        .ok()
        .filter(|name| live.instances.contains_key(name));
    if let Some(name) = taken {
        return Some(refused(
            loaded,
            "plan::foreign",
            format!("`{name}` is an instance that this environment does not own"),
            "nothing is done to it, or read from it; rename the sandbox, or take the instance over with `adopt`",
        ));
    }
    let declared = desired.sandboxes.contains_key(sandbox);
    (!declared).then(|| unknown(desired, live, sandbox.as_str()))
}

fn unknown(desired: &Desired, live: &Live, name: &str) -> Error {
    let matched = Matched::owned_by(&desired.environment, live);
    let mut names: Vec<&SandboxName> = desired.sandboxes.keys().collect();
    names.extend(matched.left_over(desired).into_iter().map(|(name, _)| name));
    let texts = || names.iter().map(|name| name.as_str());
    // A count's base name stands for all of it, and here for none.
    let counted: Vec<&str> = desired
        .sandboxes
        .values()
        .filter(|sandbox| sandbox.base.as_str() == name)
        .map(|sandbox| sandbox.name.as_str())
        .collect();
    let hint = match (&counted[..], nearest(name, texts())) {
        ([], Some(near)) => format!("did you mean `{near}`?"),
        ([], None) if names.is_empty() => format!("the environment {} has none", desired.environment),
        ([], None) => format!("there are: {}", some(&texts().collect::<Vec<_>>())),
        (counted, _) => format!("name one of {}", some(counted)),
    };
    Error::usage(format!("no sandbox is named `{name}`"), hint)
}

/// A refusal that has no place in the spec.
pub(super) fn refused(loaded: &Loaded, code: &'static str, message: String, hint: &str) -> Error {
    Error::Refused {
        diagnostics: vec![Diagnostic::new(code, message, &Place::nowhere(), "").with_help(hint)],
        sources: loaded.sources.clone(),
        code: Code::Refused,
    }
}

impl Found {
    /// Refuses what needs it to run.
    pub(super) fn must_run(&self, desired: &Desired) -> Result<(), Error> {
        if self.instance.status == Status::Running {
            return Ok(());
        }
        let wanted = desired.sandboxes.get(&self.name).map(|sandbox| sandbox.state);
        let hint = match (self.instance.status, wanted) {
            (Status::Frozen, Some(Power::Running)) => "its processes are held: `sbx-apply apply` lets them go on",
            (Status::Frozen, _) => "its processes are held: thaw it with the backend's own tools",
            (_, Some(Power::Running)) => "`sbx-apply apply` starts it",
            (_, Some(Power::Stopped)) => "the spec has it stopped: say `state \"running\"` and apply",
            (_, None) => "the spec no longer names it, so nothing starts it",
        };
        let message = format!("`{}` does not run: it is {}", self.name, self.instance.status.as_str());
        Err(backend::Error::new(ErrorKind::Invalid, message).with_hint(hint).into())
    }

    /// The user that it was made with, as recorded; the spec's where nothing has been yet.
    pub(super) fn user(&self, desired: &Desired) -> Option<User> {
        let applied = self.instance.labels.applied();
        if applied.is_empty() {
            return desired.sandboxes.get(&self.name)?.user.clone();
        }
        let (name, uid) = applied.get(&Field::sandbox("user"))?.split_once(':')?;
        Some(User {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            at: Place::nowhere(),
        })
    }

    /// As whom commands run: its user, or root where it has none.
    pub(super) fn account(&self, desired: &Desired) -> Account {
        self.user(desired).map_or_else(Account::root, |user| Account {
            owner: user.owner(),
            home: user.home().to_string(),
            name: user.name,
        })
    }

    /// To whom a new file there belongs: below its user's home to that user, else to root.
    pub(super) fn owner_at(&self, desired: &Desired, path: &GuestPath) -> Owner {
        match self.user(desired) {
            Some(user) if path.lies_in(&user.home()) => user.owner(),
            _ => Owner::ROOT,
        }
    }

    /// The sandboxes of the environment that were cloned from one of its snapshots, as they are counted.
    pub(super) fn clones_of(&self, label: &str) -> Vec<String> {
        let source = format!("{}@{label}", self.name);
        let matched = Matched::owned_by(&self.environment, &self.live);
        let clones = matched.in_order().into_iter().filter(|(_, instance)| {
            instance.labels.applied().get(&Field::sandbox("clone-from")) == Some(source.as_str())
        });
        clones.map(|(name, _)| name.to_string()).collect()
    }

    /// The environment that it is of.
    pub(super) fn environment(&self) -> &EnvironmentName {
        &self.environment
    }

    /// The sandboxes under a policy, this one among them, as they are counted.
    pub(super) fn sharing(&self, key: &PolicyKey) -> Vec<String> {
        let matched = Matched::owned_by(&self.environment, &self.live);
        let under = |instance: &LiveInstance| instance.egress.as_ref().is_some_and(|live| live.policy.key == *key);
        let sharing = matched
            .in_order()
            .into_iter()
            .filter(|(name, instance)| **name == self.name || under(instance));
        sharing.map(|(name, _)| name.to_string()).collect()
    }

    /// The instance of another sandbox of the environment.
    pub(super) fn instance_of(&self, sandbox: &SandboxName) -> Option<&InstanceName> {
        let matched = Matched::owned_by(&self.environment, &self.live);
        let mut all = matched.in_order().into_iter();
        let found = all.find(|(name, _)| *name == sandbox)?.1;
        self.live.instances.get(&found.name).map(|instance| &instance.name)
    }

    /// The instances under a policy.
    pub(super) fn under(&self, key: &PolicyKey) -> impl Iterator<Item = &InstanceName> {
        let matched = Matched::owned_by(&self.environment, &self.live);
        let owned = matched.in_order().into_iter().map(|(_, instance)| instance);
        let under = owned.filter(|instance| instance.egress.as_ref().is_some_and(|live| live.policy.key == *key));
        let names: Vec<&InstanceName> = under.map(|instance| &instance.name).collect();
        names.into_iter()
    }

    /// Whether its disk is guarded, by its label or by the spec.
    pub(super) fn is_protected(&self, desired: &Desired) -> bool {
        let declared = desired.sandboxes.get(&self.name);
        declared.is_some_and(|sandbox| sandbox.protect.is_some()) || self.instance.labels.is_true(Labels::PROTECT)
    }
}

/// Whether somebody can be asked: not where the spec comes by standard input.
pub(super) fn interactive(settings: &Settings, spec: &SpecArg) -> bool {
    settings.interactive && !spec.is_stdin()
}
