//! Ports of this machine that one sandbox has and another one wants.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, Op, Refusal, Step, StepId};
use crate::model::{
    Attach, Desired, Field, GuestPort, InstanceName, Kind, Live, LiveInstance, Ownership, Protocol, Sandbox, Status,
};

/// Has a port that goes from one sandbox to another let go of first. Where that would go round in a circle, as when two swap
/// theirs, it is let go of before all else. One whose holder keeps it cannot be had.
pub(super) fn pass_on(steps: &mut Vec<Step>, desired: &Desired, live: &Live) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let mut early: BTreeMap<InstanceName, BTreeSet<GuestPort>> = BTreeMap::new();
    for index in 0..steps.len() {
        let wanted = opens(&steps[index], desired.sandboxes.get(&steps[index].sandbox));
        for (guest, host) in wanted {
            let wants = steps[index].instance.clone();
            let holders = live.instances.values().filter(|instance| {
                instance.name != wants
                    && instance.status != Status::Stopped
                    && instance.workspace.listening.contains(&(host, guest.protocol))
            });
            for holder in holders {
                let Some(release) = lets_go(steps, holder, host, guest.protocol) else {
                    refusals.extend(
                        desired
                            .sandboxes
                            .get(&steps[index].sandbox)
                            .map(|sandbox| held(sandbox, guest, host, holder, desired)),
                    );
                    continue;
                };
                steps[index].needs.push(release);
                if Graph::of(steps).order().is_err() {
                    steps[index].needs.pop();
                    let early_release = early_id(steps, holder);
                    steps[index].needs.push(early_release);
                    let guests = leading_to(holder, host, guest.protocol);
                    early.entry(holder.name.clone()).or_default().extend(guests);
                }
            }
        }
    }
    for (holder, guests) in early {
        let Some(first) = steps.iter().position(|step| step.instance == holder) else {
            continue;
        };
        let id = StepId(format!("{}/let-go", steps[first].sandbox));
        let gone = |guest: &GuestPort| (Field::of(Kind::Port, guest.to_string(), "host"), None);
        let step = Step {
            id: id.clone(),
            sandbox: steps[first].sandbox.clone(),
            instance: holder,
            title: match guests.len() {
                1 => "let go of 1 port".to_owned(),
                number => format!("let go of {number} ports"),
            },
            needs: Vec::new(),
            facts: guests.iter().map(gone).collect(),
            op: Op::Attach(Attach {
                ports: guests.into_iter().map(|guest| (guest, None)).collect(),
                ..Attach::default()
            }),
        };
        steps[first].needs.push(id);
        steps.insert(first, step);
    }
    refusals
}

/// The ports that a step opens, each with the host's.
fn opens(step: &Step, sandbox: Option<&Sandbox>) -> Vec<(GuestPort, u16)> {
    match &step.op {
        Op::Attach(attach) => {
            let wanted = attach.ports.iter();
            wanted.filter_map(|(guest, host)| Some((*guest, (*host)?))).collect()
        }
        Op::Start => {
            let ports = sandbox.into_iter().flat_map(|sandbox| &sandbox.ports);
            ports.map(|port| (port.guest, port.host)).collect()
        }
        _ => Vec::new(),
    }
}

/// The step with which an instance lets go of a port that it has.
fn lets_go(steps: &[Step], holder: &LiveInstance, host: u16, protocol: Protocol) -> Option<StepId> {
    let guests = leading_to(holder, host, protocol);
    let mut of_it = steps.iter().filter(|step| step.instance == holder.name);
    let release = of_it.find(|step| match &step.op {
        Op::Delete => true,
        Op::Attach(attach) => {
            let mut guests = guests.iter().filter_map(|guest| attach.ports.get(guest));
            guests.any(|after| *after != Some(host))
        }
        _ => false,
    });
    release.map(|step| step.id.clone())
}

/// The ports of an instance to which one of the host's leads, or may lead: those that are not as they should be, too.
fn leading_to(holder: &LiveInstance, host: u16, protocol: Protocol) -> Vec<GuestPort> {
    let ports = holder.workspace.ports.iter();
    let leading = ports.filter(|(guest, number)| {
        guest.protocol == protocol && number.parse::<u16>().map_or(true, |number| number == host)
    });
    leading.map(|(guest, _)| *guest).collect()
}

/// The step that lets go of what an instance has, before all else that is done to it.
fn early_id(steps: &[Step], holder: &LiveInstance) -> StepId {
    let of_it = steps.iter().find(|step| step.instance == holder.name);
    StepId(format!("{}/let-go", of_it.map_or("", |step| step.sandbox.as_str())))
}

fn held(sandbox: &Sandbox, guest: GuestPort, host: u16, holder: &LiveInstance, desired: &Desired) -> Refusal {
    let name = match holder.labels.ownership(&holder.name) {
        Ownership::Owned { sandbox, .. } => Some(sandbox),
        Ownership::Foreign => None,
    };
    let who = name.as_ref().map_or(holder.name.as_str(), |name| name.as_str());
    let help = match &name {
        Some(name) if desired.sandboxes.contains_key(name) => {
            format!("apply `{name}` as well, or choose another one with `host`")
        }
        _ => format!("`{who}` is not in the spec: `--prune` deletes it; or choose another one with `host`"),
    };
    let port = sandbox.ports.iter().find(|port| port.guest == guest);
    Refusal::invalid(
        "plan::taken-port",
        format!("port {host} of this machine is taken: `{who}` has it"),
        port.map_or(&sandbox.at, |port| &port.at),
        "needed here",
        help,
    )
}
