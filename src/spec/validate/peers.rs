//! Sandboxes that policies open to others.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::references::{base_of, undeclared};
use crate::model::Diagnostic;
use crate::spec::decode::Block;
use crate::spec::problems::Problems;
use crate::spec::resolve::Declared;
use crate::spec::syntax::Scalar;

/// Checks that what a policy opens by a sandbox's name is one, and another one. `shared` are the policies with names.
pub(crate) fn peers(sandboxes: &[Declared], shared: &IndexMap<String, Block>, problems: &mut Problems) {
    let by_base: BTreeMap<&str, &Declared> = sandboxes.iter().map(|s| (s.block.name(), s)).collect();
    let policy_of = |sandbox: &Declared| {
        let label = sandbox.block.block("egress")?.label.as_ref()?;
        Some(label.text.clone())
    };
    let own = sandboxes
        .iter()
        .filter_map(|s| Some((s.block.block("egress")?, Some(s), None)));
    let shared = shared.iter().map(|(name, block)| (block, None, Some(name.as_str())));
    for (policy, owner, name) in own.chain(shared) {
        for value in policy.blocks("allow").filter_map(|rule| rule.value("sandbox")) {
            if value.scalar == Scalar::Invalid {
                continue;
            }
            let named = by_base.get(value.text.as_str()).copied();
            let Some(named) = named.or_else(|| base_of(&value.text, &by_base)) else {
                problems.push(undeclared("sandbox", value, by_base.keys().copied()));
                continue;
            };
            let is_owner = owner.is_some_and(|owner| owner.block.name() == named.block.name() && owner.count.is_none());
            let shares = name.is_some_and(|name| policy_of(named).as_deref() == Some(name));
            let (message, help) = match (is_owner, shares) {
                (true, _) => (
                    format!("sandbox \"{}\" cannot be opened to itself", value.text),
                    "it reaches itself anyway: take the rule out, or name another one",
                ),
                (_, true) => (
                    format!(
                        "\"{}\" is under this very policy, and those that share one do not reach each other",
                        value.text
                    ),
                    "give it a policy of its own",
                ),
                _ => continue,
            };
            problems.push(
                Diagnostic::new(
                    "spec::unsupported-destination",
                    message,
                    &value.at,
                    "no destination from here",
                )
                .with_help(help),
            );
        }
    }
}
