//! Egress policies inside sandboxes of simulated systems: the containers, their packet filters and what they reach are real.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};

use super::sim::{Dialect, Knobs, Sim};
use super::whole::Program;

/// Two servers on this machine, which answer every connection with a word.
struct Servers {
    address: Ipv4Addr,
    open: u16,
    closed: u16,
}

impl Servers {
    async fn start(sim: &Sim) -> Self {
        let address = sim.gateway().await.expect("the simulation has a network");
        let serve = || {
            let listener = TcpListener::bind((address, 0)).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _ = stream.write_all(b"REACHED\n");
                }
            });
            port
        };
        Self {
            address,
            open: serve(),
            closed: serve(),
        }
    }

    /// A script that prints REACHED where it can connect.
    fn connect(&self, port: u16) -> String {
        format!("timeout 5 nc -w 4 {} {port} </dev/null 2>/dev/null", self.address)
    }

    /// Holds what a sandbox reaches against what it should.
    async fn held(&self, program: &Program<'_>, sandbox: &str, open: bool, closed: bool) {
        for (port, wanted) in [(self.open, open), (self.closed, closed)] {
            let script = self.connect(port);
            let (_, said) = program
                .run(&["exec", sandbox, "--root", "--", "sh", "-c", &script])
                .await;
            assert_eq!(said.contains("REACHED"), wanted, "{port}: {said}");
        }
    }
}

const SPEC: &str = r#"
environment "NAME"
backend "truenas"
sandbox "one" {
    image "debian/bookworm"
    egress { allow "ADDRESS" port=OPEN protocol="tcp"; }
    run "first" command="nft list table inet sbx-apply > /was-closed; nc -w 4 ADDRESS OPEN </dev/null | grep REACHED; ! nc -w 2 ADDRESS CLOSED </dev/null"
}
"#;

async fn fenced(dialect: Dialect) {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(dialect, Knobs::default()).await;
    let servers = Servers::start(&sim).await;
    let fill = |spec: &str| {
        spec.replace("ADDRESS", &servers.address.to_string())
            .replace("OPEN", &servers.open.to_string())
            .replace("CLOSED", &servers.closed.to_string())
    };
    let spec = fill(SPEC);
    let program = Program::new(&sim, &spec);
    let plan = program.does(&["plan"], 0).await;
    assert!(
        plan.contains("inside, best effort") && plan.contains("whoever is root in there can undo it"),
        "{plan}"
    );
    assert!(plan.contains("its first start is open"), "{plan}");
    program.does(&["apply", "--yes"], 0).await;
    program.does(&["plan", "--detailed-exitcode"], 0).await;
    servers.held(&program, "one", true, false).await;
    assert!(
        program
            .does(&["show"], 0)
            .await
            .contains("sandbox/one (inside, best effort)")
    );
    let shown = program.does(&["egress", "show", "one"], 0).await;
    assert!(shown.contains("best effort"), "{shown}");

    // From its start on, with nobody there.
    sim.reboot(&program.instance("one")).await;
    servers.held(&program, "one", true, false).await;
    program.does(&["check"], 0).await;

    // By hand.
    program
        .does(&["exec", "one", "--root", "--", "nft", "flush", "ruleset"], 0)
        .await;
    let drift = program.does(&["check"], 3).await;
    assert!(drift.contains("its packet filter has no such rules"), "{drift}");
    program.does(&["apply", "--yes"], 0).await;
    servers.held(&program, "one", true, false).await;
    program.does(&["check"], 0).await;

    // An edit, and the end of it; both without a restart.
    let other = spec.replace(&format!("port={}", servers.open), &format!("port={}", servers.closed));
    program.write(&other);
    assert!(program.does(&["plan"], 0).await.contains("no longer reachable"));
    program.does(&["apply", "--yes"], 0).await;
    servers.held(&program, "one", false, true).await;
    let free = other.lines().filter(|line| !line.contains("egress"));
    program.write(&free.collect::<Vec<_>>().join("\n"));
    program.does(&["apply", "--yes"], 0).await;
    servers.held(&program, "one", true, true).await;
    program.does(&["plan", "--detailed-exitcode"], 0).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    assert_eq!(sim.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn rules_inside_on_25_04() {
    fenced(Dialect::V25_04).await;
}

#[tokio::test]
async fn rules_inside_on_26() {
    fenced(Dialect::V26).await;
}

/// A stopped sandbox is as it was left; a clone has rules of its own; and where there is no nft, nothing stays up.
#[tokio::test]
async fn stopped_ones_clones_and_images_without_nft() {
    if !Sim::has_containers().await {
        return;
    }
    let sim = Sim::start(Dialect::V25_10, Knobs::default()).await;
    let spec = r#"
environment "NAME"
backend "truenas"
sandbox "base" {
    image "debian/bookworm"
    state "stopped"
    egress { mode "none"; }
    snapshot "ready"
}
sandbox "free" { clone-from "base" snapshot="ready"; }
"#;
    let program = Program::new(&sim, spec);
    program.does(&["apply", "--yes"], 0).await;
    let plan = program.does(&["plan", "--detailed-exitcode"], 0).await;
    assert!(plan.contains("egress rules were not looked at"), "{plan}");
    assert!(
        program
            .does(&["show"], 0)
            .await
            .contains("sandbox/base (inside, best effort)")
    );
    let said = program.does(&["egress", "set", "base", "unrestricted"], 1).await;
    assert!(said.contains("does not run"), "{said}");
    let script = "nft list ruleset; ls /etc/sbx-apply/egress.nft 2>/dev/null; rm /usr/sbin/nft";
    let left = program
        .does(&["exec", "free", "--root", "--", "sh", "-c", script], 0)
        .await;
    assert_eq!(left.trim(), "", "a clone has none of its source's");
    program.does(&["snapshot", "create", "free", "bare"], 0).await;

    // Of what is there already, a plan can tell; a new one does not stay up.
    let bare = spec.replace("sandbox \"free\" { ", "sandbox \"free\" { egress { mode \"none\"; }; ");
    program.write(&bare);
    let said = program.does(&["plan"], 1).await;
    assert!(
        said.contains("no egress policy can be enforced inside `free`") && said.contains("sbx.kdl:"),
        "{said}"
    );
    let clone = format!(
        "{spec}sandbox \"late\" {{ clone-from \"free\"; egress {{ mode \"none\"; }}; run \"a\" command=\"true\"; }}\n"
    );
    program.write(&clone);
    let said = program.does(&["apply", "--yes"], 1).await;
    assert!(said.contains("it has no program nft"), "{said}");
    assert!(!sim.runs(&program.instance("late")).await, "it does not stay up");
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
}
