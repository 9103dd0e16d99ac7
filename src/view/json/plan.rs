//! The plan as a document.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::model::Kind;
use crate::plan::saved::Saved;
use crate::plan::{self, Action, Impact, Origin, Plan, Reason, RefusalKind, SpecChange, Summary};
use crate::probe::{self, Outcome};

/// The version of the documents' form. Keys may be added to it; what a key means never changes.
pub const FORMAT_VERSION: &str = "1";

/// A plan: what differs, why, and the steps that would bring it in line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(title = "sbx-apply plan")]
pub struct PlanDocument<'a> {
    /// The version of this form: `1`.
    pub format_version: &'static str,
    /// The environment.
    pub environment: &'a str,
    /// The backend's name.
    pub backend: &'a str,
    /// Whether everything is as it should be.
    pub in_sync: bool,
    /// How many changes there are of each sort.
    pub summary: Summary,
    /// Files of the spec that sandboxes may have written since they were applied; applying asks for consent. Not counted.
    pub spec_changes: &'a [SpecChange],
    /// What differs, by sandbox in the spec's order.
    pub changes: Vec<Change<'a>>,
    /// The work, in no particular order: `needs` tells it.
    pub steps: Vec<Step<'a>>,
    /// Differences that are accepted by `ignore`; not counted.
    pub accepted: Vec<Accepted<'a>>,
    /// Owned sandboxes that the spec no longer names; not counted.
    pub leftovers: Vec<Leftover<'a>>,
    /// Lines worth reading that are no changes.
    pub notices: Vec<Notice<'a>>,
    /// What stands in the way; while there is anything here, nothing is applied.
    pub refusals: Vec<Refusal<'a>>,
    /// What probing outbound rules from inside has shown; `check` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<Vec<Probe<'a>>>,
    /// What the plan was made from; in a plan that is kept only (`plan --out`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saved: Option<&'a Saved>,
}

/// One outbound rule, probed from inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Probe<'a> {
    /// The sandbox.
    pub sandbox: &'a str,
    /// What was tried.
    pub check: Cow<'a, str>,
    /// What came of it.
    pub outcome: Outcome,
    /// What was seen, for people.
    pub detail: &'a str,
}

impl<'a> Probe<'a> {
    /// One check of one sandbox.
    pub(super) fn of(probe: &'a probe::Probe) -> Self {
        Self {
            sandbox: probe.sandbox.as_str(),
            check: Cow::Borrowed(&probe.check),
            outcome: probe.outcome,
            detail: &probe.detail,
        }
    }
}

/// One object of one sandbox that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Change<'a> {
    /// The sandbox, by its name in the spec.
    pub sandbox: &'a str,
    /// What kind of object.
    pub kind: Kind,
    /// Which one of that kind; empty for the sandbox itself, its power and its egress.
    pub name: &'a str,
    /// What is done.
    pub action: Action,
    /// What that does to whoever uses the sandbox.
    pub impact: Impact,
    /// Why.
    pub reason: Reason,
    /// Each field that differs.
    pub fields: Vec<Field<'a>>,
}

/// A field before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Field<'a> {
    /// Which, as `ignore` takes it: `KIND[:NAME][.FIELD]`.
    pub path: String,
    /// Its live value; null where there is none.
    pub before: Option<&'a str>,
    /// The value it gets; null where it goes.
    pub after: Option<&'a str>,
    /// Which side moved.
    pub origin: Origin,
}

/// A difference that is accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Accepted<'a> {
    /// The sandbox.
    pub sandbox: &'a str,
    /// The field.
    #[serde(flatten)]
    pub field: Field<'a>,
    /// The last day, UTC, on which it is accepted; null where there is none.
    pub until: Option<String>,
    /// Why; null where nobody said.
    pub reason: Option<&'a str>,
}

/// A step of the work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Step<'a> {
    /// Its name, unique in the plan.
    pub id: &'a str,
    /// The sandbox, by its name in the spec.
    pub sandbox: &'a str,
    /// What it does, in a word.
    pub op: &'static str,
    /// What it does, for people.
    pub title: &'a str,
    /// The steps that must have succeeded before.
    pub needs: Vec<&'a str>,
}

/// An owned sandbox that the spec no longer names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Leftover<'a> {
    /// Its name when it was in the spec.
    pub sandbox: &'a str,
    /// Its instance.
    pub instance: &'a str,
    /// Whether its disk is guarded.
    pub protected: bool,
}

/// A line worth reading.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Notice<'a> {
    /// The sandbox that it is about.
    pub sandbox: &'a str,
    /// What there is to say.
    pub text: Cow<'a, str>,
}

/// Something that stands in the plan's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Refusal<'a> {
    /// `invalid`: the spec asks for what cannot be. `refused`: it would touch what is not ours, or is protected.
    pub kind: &'static str,
    /// A stable code.
    pub code: &'a str,
    /// What is wrong.
    pub message: &'a str,
    /// Where: `FILE:LINE:COLUMN`.
    pub place: Option<String>,
    /// What to do about it.
    pub help: Option<&'a str>,
}

impl<'a> PlanDocument<'a> {
    /// The document of a plan.
    #[must_use]
    pub fn of(plan: &'a Plan) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            environment: plan.environment.as_str(),
            backend: &plan.backend,
            in_sync: plan.in_sync(),
            summary: plan.summary(),
            spec_changes: &plan.spec_changes,
            changes: plan.changes.iter().map(Change::of).collect(),
            steps: plan.steps.iter().map(Step::of).collect(),
            accepted: plan
                .accepted
                .iter()
                .map(|accepted| Accepted {
                    sandbox: accepted.sandbox.as_str(),
                    field: Field::of(&accepted.field),
                    until: accepted.until.map(|until| until.to_string()),
                    reason: accepted.reason.as_deref(),
                })
                .collect(),
            leftovers: plan
                .leftovers
                .iter()
                .map(|left| Leftover {
                    sandbox: left.sandbox.as_str(),
                    instance: left.instance.as_str(),
                    protected: left.protected,
                })
                .collect(),
            notices: plan
                .notices
                .iter()
                .map(|notice| Notice {
                    sandbox: notice.sandbox.as_str(),
                    text: Cow::Borrowed(&notice.text),
                })
                .collect(),
            refusals: plan.refusals.iter().map(Refusal::of).collect(),
            probes: None,
            saved: None,
        }
    }
}

impl<'a> Change<'a> {
    fn of(change: &'a plan::Change) -> Self {
        Self {
            sandbox: change.sandbox.as_str(),
            kind: change.kind,
            name: &change.name,
            action: change.action,
            impact: change.impact,
            reason: change.reason,
            fields: change.fields.iter().map(Field::of).collect(),
        }
    }
}

impl<'a> Field<'a> {
    fn of(change: &'a plan::FieldChange) -> Self {
        Self {
            path: change.field.to_string(),
            before: change.before.as_deref(),
            after: change.after.as_deref(),
            origin: change.origin,
        }
    }
}

impl<'a> Step<'a> {
    fn of(step: &'a plan::Step) -> Self {
        Self {
            id: step.id.as_str(),
            sandbox: step.sandbox.as_str(),
            op: step.op.as_str(),
            title: &step.title,
            needs: step.needs.iter().map(plan::StepId::as_str).collect(),
        }
    }
}

impl<'a> Refusal<'a> {
    fn of(refusal: &'a plan::Refusal) -> Self {
        let diagnostic = &refusal.diagnostic;
        let place = diagnostic.marks.first().map(|mark| &mark.place);
        Self {
            kind: match refusal.kind {
                RefusalKind::Invalid => "invalid",
                RefusalKind::Refused => "refused",
            },
            code: diagnostic.code,
            message: &diagnostic.message,
            place: place.filter(|place| place.length > 0).map(ToString::to_string),
            help: diagnostic.help.as_deref(),
        }
    }
}
