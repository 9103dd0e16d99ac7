//! Which questions are asked inside a sandbox, and what their answers mean.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Outcome;
use super::look::{self, Seen};
use crate::model::{Destination, Enforcement, PinnedPolicy, Protocol};

/// How many destinations of a policy are tried at most.
const TRIED: usize = 8;

/// Names that everybody can look up and that no policy needs (RFC 2606, section 3).
const FOREIGN: [&str; 3] = ["example.com", "example.org", "example.net"];

/// An IPv6 address of a public DNS service, over which it also speaks TLS.
const IPV6: Ipv6Addr = Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111);

/// Ports at which a host is likely to serve something.
const SERVICES: [u16; 4] = [22, 80, 443, 8443];

type Judge = Box<dyn Fn(&[Seen]) -> (Outcome, String) + Send>;

/// A check: what is asked, and what the answers mean.
pub(super) struct Check {
    pub(super) name: String,
    pub(super) questions: Vec<String>,
    pub(super) judge: Judge,
}

/// What this machine reaches: what it cannot reach itself proves nothing.
#[derive(Debug)]
pub(super) struct Outside {
    canary: SocketAddr,
    canary_answers: bool,
    ipv6_answers: bool,
    /// Names that it can look up.
    foreign: Vec<&'static str>,
    /// DNS servers that answer it, none of which is its own loopback device.
    resolvers: Vec<IpAddr>,
}

impl Outside {
    /// Looks around on this machine.
    pub(super) async fn look(canary: SocketAddr, resolvers: &[IpAddr]) -> Self {
        let mut foreign = Vec::new();
        for name in FOREIGN {
            if crate::backend::resolve(name)
                .await
                .is_ok_and(|addresses| !addresses.is_empty())
            {
                foreign.push(name);
            }
        }
        let others: Vec<IpAddr> = resolvers
            .iter()
            .copied()
            .filter(|address| !address.is_loopback())
            .collect();
        let looked = tokio::task::spawn_blocking(move || {
            let answers = |seen: Seen| matches!(seen, Seen::Answer(_));
            let says = |address: &IpAddr| {
                let seen = look::dns((*address, 53).into(), FOREIGN[0]);
                matches!(seen, Seen::Answer(_) | Seen::Refused)
            };
            Self {
                canary,
                canary_answers: answers(look::tcp(canary)),
                ipv6_answers: answers(look::tcp((IPV6, 443).into())),
                foreign,
                resolvers: others.into_iter().filter(says).collect(),
            }
        });
        looked.await.unwrap_or(Self {
            canary,
            canary_answers: false,
            ipv6_answers: false,
            foreign: Vec::new(),
            resolvers: Vec::new(),
        })
    }
}

/// What a sandbox says of itself.
#[derive(Debug)]
pub(super) struct Inside {
    resolvers: Vec<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
}

impl Inside {
    /// From the answers to `resolvers` and `gateway`.
    pub(super) fn of(answers: &[Seen]) -> Self {
        let addresses = |index: usize| match answers.get(index) {
            Some(Seen::Answer(addresses)) => addresses.clone(),
            _ => Vec::new(),
        };
        Self {
            resolvers: addresses(0),
            gateway: addresses(1).first().copied(),
        }
    }
}

/// Reads a line of the program's.
pub(super) fn read(line: &str) -> Seen {
    match line.split_once(' ').unwrap_or((line, "")) {
        ("answer", addresses) => Seen::Answer(addresses.split(',').filter_map(|text| text.parse().ok()).collect()),
        ("refused", _) => Seen::Refused,
        ("silence", _) => Seen::Silence,
        ("no-way", _) => Seen::NoWay,
        (_, why) => Seen::Failed(why.chars().filter(|c| !c.is_control()).take(100).collect()),
    }
}

/// Every check of a policy.
pub(super) fn of(
    policy: &PinnedPolicy,
    outside: &Outside,
    inside: &Inside,
    listening: Option<SocketAddr>,
) -> Vec<Check> {
    let mut checks = allowed(policy, inside);
    checks.push(canary(policy, outside));
    checks.push(foreign_names(policy, outside, inside));
    checks.push(other_servers(policy, outside, inside));
    checks.push(ipv6(policy, outside));
    checks.push(host(inside, listening));
    checks
}

fn opens(policy: &PinnedPolicy, address: IpAddr) -> bool {
    let all = policy
        .open
        .iter()
        .flat_map(|opening| opening.networks(&policy.addresses));
    all.into_iter().any(|network| network.contains(&address))
}

/// What is open can be reached: by its name, where it has one, at a pinned address.
fn allowed(policy: &PinnedPolicy, inside: &Inside) -> Vec<Check> {
    let mut checks = Vec::new();
    for opening in &policy.open {
        let Some(ports) = opening.ports.filter(|_| opening.protocol != Some(Protocol::Udp)) else {
            continue;
        };
        let name = match &opening.to {
            Destination::Domain(name) => Some(name.clone()),
            Destination::Network(network) if network.prefix_len() == network.max_prefix_len() => None,
            Destination::Network(_) => continue,
            Destination::Sandbox(name) => Some(name.to_string()),
        };
        let addresses: BTreeSet<IpAddr> = opening
            .networks(&policy.addresses)
            .map(|network| network.addr())
            .collect();
        // Inside the guest no DNS server knows the names that are open: they stand in its hosts file.
        let by_dns = policy.enforce == Enforcement::Host;
        let asked: Vec<String> = name
            .iter()
            .filter(|_| by_dns)
            .flat_map(|name| inside.resolvers.iter().map(move |server| dns(*server, name)))
            .collect();
        let servers = asked.len();
        let questions = asked
            .into_iter()
            .chain(addresses.iter().map(|address| tcp((*address, ports.first).into())))
            .collect();
        let judge = move |answers: &[Seen]| {
            let (named, reached) = answers.split_at(servers.min(answers.len()));
            let known = |seen: &Seen| matches!(seen, Seen::Answer(found) if found.iter().any(|address| addresses.contains(address)));
            if servers > 0 && !named.iter().any(known) {
                return (Outcome::Unknown, "its name does not resolve inside".to_owned());
            }
            match reached.iter().any(|seen| matches!(seen, Seen::Answer(_))) {
                true => (Outcome::Held, "connects".to_owned()),
                false => (
                    Outcome::Unknown,
                    format!("open, but does not connect: {}", words(reached)),
                ),
            }
        };
        checks.push(Check {
            name: format!("allowed {opening}"),
            questions,
            judge: Box::new(judge),
        });
    }
    checks.truncate(TRIED);
    checks
}

fn canary(policy: &PinnedPolicy, outside: &Outside) -> Check {
    let (canary, answers, opened) = (
        outside.canary,
        outside.canary_answers,
        opens(policy, outside.canary.ip()),
    );
    let judge = move |seen: &[Seen]| match seen {
        _ if opened => (
            Outcome::Unknown,
            "the policy opens it: name another with --canary".to_owned(),
        ),
        [Seen::Answer(_)] => (Outcome::Leak, "connects".to_owned()),
        _ if !answers => (
            Outcome::Unknown,
            "this machine cannot reach it either: name another with --canary".to_owned(),
        ),
        seen => (Outcome::Held, format!("does not connect: {}", words(seen))),
    };
    Check {
        name: format!("canary {canary}"),
        questions: vec![tcp(canary)],
        judge: Box::new(judge),
    }
}

/// The DNS servers that programs in there ask know the names that are open, and no others.
fn foreign_names(policy: &PinnedPolicy, outside: &Outside, inside: &Inside) -> Check {
    let free = |name: &&&str| !policy.addresses.contains_key(**name);
    let name = outside.foreign.iter().find(free).copied();
    let asked = name.unwrap_or(FOREIGN[0]);
    let servers = inside.resolvers.len();
    let judge = move |seen: &[Seen]| {
        if let Some(Seen::Answer(found)) = seen.iter().find(|seen| matches!(seen, Seen::Answer(_))) {
            let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
            return (Outcome::Leak, format!("resolves to {}", shown.join(", ")));
        }
        match (servers, name) {
            (0, _) => (Outcome::Held, "there is no DNS server".to_owned()),
            (_, None) => (Outcome::Unknown, "this machine cannot resolve it either".to_owned()),
            _ => (Outcome::Held, "does not resolve".to_owned()),
        }
    };
    Check {
        name: format!("foreign name {asked}"),
        questions: inside.resolvers.iter().map(|server| dns(*server, asked)).collect(),
        judge: Box::new(judge),
    }
}

/// Other DNS servers cannot be asked, those of the host included.
fn other_servers(policy: &PinnedPolicy, outside: &Outside, inside: &Inside) -> Check {
    let servers: Vec<IpAddr> = outside
        .resolvers
        .iter()
        .copied()
        .filter(|server| !inside.resolvers.contains(server) && !opens(policy, *server))
        .collect();
    let asked = servers.clone();
    let judge = move |seen: &[Seen]| {
        let said = |(_, seen): &(&IpAddr, &Seen)| matches!(seen, Seen::Answer(_));
        match asked.iter().zip(seen).find(said) {
            Some((server, _)) => (Outcome::Leak, format!("{server} answers")),
            None if asked.is_empty() => (
                Outcome::Unknown,
                "this machine knows no other DNS server that answers".to_owned(),
            ),
            None => (Outcome::Held, format!("no answer: {}", words(seen))),
        }
    };
    let names = match servers.as_slice() {
        [] => String::new(),
        servers => format!(
            " {}",
            servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        ),
    };
    Check {
        name: format!("other DNS server{names}"),
        questions: servers.iter().map(|server| dns(*server, FOREIGN[0])).collect(),
        judge: Box::new(judge),
    }
}

/// IPv6 stays closed, but for what a policy opens of it.
fn ipv6(policy: &PinnedPolicy, outside: &Outside) -> Check {
    let (answers, opened) = (outside.ipv6_answers, opens(policy, IPV6.into()));
    let judge = move |seen: &[Seen]| match seen {
        _ if opened => (
            Outcome::Unknown,
            "the policy opens it: name a canary by IPv6 with --canary".to_owned(),
        ),
        [Seen::Answer(_)] => (Outcome::Leak, "connects".to_owned()),
        // Without a route no machine gets anywhere.
        [Seen::NoWay] => (Outcome::Held, "there is no route".to_owned()),
        _ if !answers => (Outcome::Unknown, "this machine cannot reach it either".to_owned()),
        seen => (Outcome::Held, format!("does not connect: {}", words(seen))),
    };
    Check {
        name: format!("IPv6 [{IPV6}]:443"),
        questions: vec![tcp((IPV6, 443).into())],
        judge: Box::new(judge),
    }
}

/// The host's own services cannot be reached by the address at which the sandbox sees it.
fn host(inside: &Inside, listening: Option<SocketAddr>) -> Check {
    let Some(gateway) = inside.gateway else {
        return Check {
            name: "host's services".to_owned(),
            questions: Vec::new(),
            judge: Box::new(|_| (Outcome::Held, "there is no route to it".to_owned())),
        };
    };
    let tried: Vec<SocketAddr> = match listening {
        Some(address) => vec![address],
        None => SERVICES.iter().map(|port| SocketAddr::from((gateway, *port))).collect(),
    };
    let questions = tried.iter().map(|address| tcp(*address)).collect();
    let sure = listening.is_some();
    let judge = move |seen: &[Seen]| {
        let connects = |(_, seen): &(&SocketAddr, &Seen)| matches!(seen, Seen::Answer(_));
        match tried.iter().zip(seen).find(connects) {
            Some((address, _)) => (Outcome::Leak, format!("{address} connects")),
            None if sure => (Outcome::Held, format!("do not connect: {}", words(seen))),
            None => (
                Outcome::Unknown,
                "the host is another machine, and nothing that is known to listen there was tried".to_owned(),
            ),
        }
    };
    Check {
        name: format!("host's services at {gateway}"),
        questions,
        judge: Box::new(judge),
    }
}

fn tcp(to: SocketAddr) -> String {
    format!("tcp {to}")
}

fn dns(server: IpAddr, name: &str) -> String {
    format!("dns {} {name}", SocketAddr::from((server, 53)))
}

/// What was seen, in words.
fn words(seen: &[Seen]) -> String {
    let words: BTreeSet<&str> = seen
        .iter()
        .map(|seen| match seen {
            Seen::Answer(_) => "an answer",
            Seen::Refused => "refused",
            Seen::Silence => "no answer",
            Seen::NoWay => "no route",
            Seen::Failed(why) => why,
        })
        .collect();
    match words.is_empty() {
        true => "nothing was tried".to_owned(),
        false => words.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// Where nothing but a policy keeps one from connecting: an address of the public DNS service at 1.1.1.1, which also
/// speaks TLS.
pub(super) const CANARY: (Ipv4Addr, u16) = (Ipv4Addr::new(1, 1, 1, 1), 443);
