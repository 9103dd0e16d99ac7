//! What a system does not take of a sandbox is told at the line of the spec that says it.

use super::sim::{Dialect, Knobs, Sim};
use super::whole::Program;

/// Each refusal of one method: the spec's lines from the fifth on, parameters with what is said of them, and where in the
/// spec that stands with an excerpt of it.
const REFUSALS: [Refusal; 6] = [
    Refusal {
        dialect: Dialect::V25_04,
        method: "virt.instance.create",
        lines: "memory \"1GiB\"",
        said: &[("virt_instance_create.memory", "Cannot reserve more than there is")],
        places: &["sbx.kdl:5:12", "memory \"1GiB\"", "Cannot reserve more than there is"],
    },
    Refusal {
        dialect: Dialect::V25_10,
        method: "virt.instance.create",
        lines: "cpu 2\n    env RUST_LOG=\"info\" PROXY=\"\"",
        said: &[
            ("virt_instance_create.cpu", "There are fewer"),
            ("virt_instance_create.environment.RUST_LOG", "Not this one"),
            (
                "virt_instance_create.environment.SBX_APPLY__ENV__50_52_4f_58_59",
                "Nor that",
            ),
        ],
        places: &["sbx.kdl:5:9", "There are fewer", "Not this one", "Nor that", " 6 │ "],
    },
    Refusal {
        dialect: Dialect::V25_10,
        method: "virt.instance.create",
        lines: "",
        said: &[("virt_instance_create.devices.0.parent", "Nobody knows it")],
        places: &["sbx.kdl:3:1", "Nobody knows it"],
    },
    Refusal {
        dialect: Dialect::V26,
        method: "container.create",
        lines: "",
        said: &[("container_create.image.version", "No such version")],
        places: &["sbx.kdl:4:11", "No such version"],
    },
    Refusal {
        dialect: Dialect::V26,
        method: "container.create",
        lines: "env A=\"b\"",
        said: &[("container_create.initenv.A", "Too odd")],
        places: &["sbx.kdl:5:9", "Too odd"],
    },
    Refusal {
        dialect: Dialect::V26,
        method: "container.create",
        lines: "env A=\"b\"",
        said: &[("container_create.initenv.SBX_APPLY_SANDBOX", "Too odd")],
        places: &["sbx.kdl:3:1", "Too odd"],
    },
];

struct Refusal {
    dialect: Dialect,
    method: &'static str,
    lines: &'static str,
    said: &'static [(&'static str, &'static str)],
    places: &'static [&'static str],
}

#[tokio::test]
async fn what_is_not_taken_is_told_where_the_spec_says_it() {
    if !Sim::has_containers().await {
        return;
    }
    for refusal in REFUSALS {
        let sim = Sim::start(refusal.dialect, Knobs::default()).await;
        let spec = format!(
            "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"base\" {{\n    image \"debian/bookworm\"\n    {}\n}}\n",
            refusal.lines
        );
        let program = Program::new(&sim, &spec);
        sim.turn(|knobs| knobs.refusing = vec![(refusal.method, refusal.said.to_vec())]);
        let said = program.does(&["apply", "--yes"], 1).await;
        for place in refusal.places {
            assert!(said.contains(place), "{place}: {said}");
        }
        let said = program.does(&["apply", "--yes", "--json"], 1).await;
        let (_, rest) = refusal.places[0].split_once(':').expect("a line");
        let (line, column) = rest.split_once(':').expect("a column");
        let place = format!("\"line\":{line},\"column\":{column},\"text\":\"{}\"", refusal.said[0].1);
        assert!(said.contains(&place), "{place}: {said}");
        sim.turn(|knobs| knobs.refusing.clear());
        program.does(&["apply", "--yes"], 0).await;
        program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
        assert_eq!(sim.violations(), Vec::<String>::new());
    }
}

/// The same of a change, on the line that has changed.
#[tokio::test]
async fn a_change_that_is_not_taken_is_told_where_the_spec_says_it() {
    if !Sim::has_containers().await {
        return;
    }
    let spec = "environment \"NAME\"\nbackend \"truenas\"\nsandbox \"base\" {\n    image \"debian/bookworm\"\n    memory \"1GiB\"\n}\n";
    let sim = Sim::start(Dialect::V25_10, Knobs::default()).await;
    let program = Program::new(&sim, spec);
    program.does(&["apply", "--yes"], 0).await;
    program.write(&spec.replace("1GiB", "2GiB"));
    let said = vec![("virt_instance_update.memory", "Cannot reserve more than there is")];
    sim.turn(|knobs| knobs.refusing = vec![("virt.instance.update", said)]);
    let said = program.does(&["apply", "--yes"], 1).await;
    for place in ["sbx.kdl:5:12", "memory \"2GiB\"", "Cannot reserve more than there is"] {
        assert!(said.contains(place), "{place}: {said}");
    }
    sim.turn(|knobs| knobs.refusing.clear());
    program.does(&["apply", "--yes"], 0).await;
    program.does(&["destroy", "--yes", "--allow-data-loss"], 0).await;
    assert_eq!(sim.violations(), Vec::<String>::new());
}
