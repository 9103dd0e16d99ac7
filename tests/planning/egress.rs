//! Outbound network policy, compared.

use sbx_apply::backend::memory::Memory;
use serde_json::Value;

use super::{program_with, run};

fn spec(egress: &str) -> String {
    format!("sandbox \"one\" {{ image \"debian/12\"; {egress} }}")
}

const TWO: &str = "egress { allow \"192.0.2.0/24\" port=443; allow \"198.51.100.7\" protocol=\"udp\"; }";

async fn applied(egress: &str) -> Memory {
    let memory = Memory::new();
    run(&memory, "apply", &spec(egress), 0).await;
    let _ = memory.take_journal();
    memory
}

/// The fields of the plan's egress change, with their origins, and its reason and impact.
async fn fields(memory: &Memory, egress: &str) -> (Vec<String>, String) {
    let shown = program_with(memory, &["plan", "-", "--json"], &spec(egress)).await;
    let plan: Value = serde_json::from_str(&shown.stdout).expect("JSON");
    let changes = plan["changes"].as_array().expect("changes");
    let Some(change) = changes.iter().find(|change| change["kind"] == "egress") else {
        return (Vec::new(), String::new());
    };
    let fields = change["fields"].as_array().expect("fields").iter().map(|field| {
        let text = |key: &str| field[key].as_str().unwrap_or("-").to_owned();
        format!(
            "{} {}>{} {}",
            text("path"),
            text("before"),
            text("after"),
            text("origin")
        )
    });
    let how = format!("{} {} {}", change["action"], change["reason"], change["impact"]).replace('"', "");
    (fields.collect(), how)
}

#[tokio::test]
async fn it_is_in_force_before_the_first_start() {
    let memory = Memory::new();
    run(&memory, "apply", &spec(TWO), 0).await;
    let journal = memory.take_journal();
    let at = |what: &str| {
        journal
            .iter()
            .position(|entry| entry.starts_with(what))
            .unwrap_or_else(|| panic!("{what}: {journal:?}"))
    };
    assert!(at("create demo-one") < at("egress demo-one sandbox/one") && at("egress demo-one") < at("start demo-one"));
    assert_eq!(fields(&memory, TWO).await, (Vec::new(), String::new()));
}

#[tokio::test]
async fn each_destination_is_a_field_and_an_edit_is_live() {
    let memory = applied(TWO).await;
    let (fields, how) = fields(
        &memory,
        "egress { allow \"192.0.2.0/24\" port=443; allow \"203.0.113.9\"; }",
    )
    .await;
    assert_eq!(
        fields,
        [
            "egress.allow:198.51.100.7:*/udp open>- pending",
            "egress.allow:203.0.113.9 ->open pending"
        ]
    );
    assert_eq!(how, "update spec-changed live");
}

#[tokio::test]
async fn a_policy_that_comes_or_goes_restarts() {
    let memory = applied("").await;
    let (_, how) = fields(&memory, "egress { mode \"none\"; }").await;
    assert_eq!(how, "create new restart");
    let memory = applied(TWO).await;
    let (found, how) = fields(&memory, "").await;
    assert_eq!(found, ["egress.mode allowlist>- pending"]);
    assert_eq!(how, "update left-spec restart");
    let shown = program_with(&memory, &["plan", "-"], &spec("")).await;
    assert!(shown.stdout.contains("egress becomes unrestricted"), "{}", shown.stdout);
    run(&memory, "apply", &spec(""), 0).await;
    assert_eq!(memory.machine("demo-one").expect("it").egress, None);
    let (found, _) = fields(&memory, "egress { mode \"unrestricted\"; }").await;
    assert_eq!(found, Vec::<String>::new(), "just what no word of it says");
}

#[tokio::test]
async fn what_hands_open_close_and_lift_is_drift() {
    let memory = applied(TWO).await;
    let edit = |edit: &dyn Fn(&mut sbx_apply::model::LivePolicy)| {
        let edited = memory.edit("demo-one", |machine| {
            machine.egress.as_mut().map(edit);
            Ok(())
        });
        edited.expect("is there");
    };
    edit(&|live| {
        live.policy.open.insert("203.0.113.9".parse().expect("an opening"));
    });
    assert_eq!(fields(&memory, TWO).await.0, ["egress.allow:203.0.113.9 open>- drift"]);
    edit(&|live| live.policy.open.clear());
    assert_eq!(fields(&memory, TWO).await.0.len(), 2);
    edit(&|live| live.fault = Some(sbx_apply::model::Fault::live("its filter is off")));
    let (found, _) = fields(&memory, TWO).await;
    assert!(
        found.contains(&"egress.enforced its filter is off>yes drift".to_owned()),
        "{found:?}"
    );
    run(&memory, "apply", &spec(TWO), 0).await;
    assert_eq!(fields(&memory, TWO).await.0, Vec::<String>::new());
    let lifted = memory.edit("demo-one", |machine| {
        machine.egress = None;
        Ok(())
    });
    lifted.expect("is there");
    assert_eq!(
        fields(&memory, TWO).await,
        (
            vec!["egress.mode unrestricted>allowlist drift".to_owned()],
            "update live-changed restart".to_owned()
        )
    );
    let accepted = TWO.to_owned() + "; ignore \"egress\" reason=\"for a while\";";
    assert_eq!(fields(&memory, &accepted).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_an_error_at_its_line() {
    let memory = Memory::new();
    let shown = program_with(
        &memory,
        &["plan", "-"],
        &spec("egress { allow \"no-such-name.invalid\"; }"),
    )
    .await;
    assert_eq!(shown.code, 1, "{}", shown.stdout);
    assert!(
        shown.stderr.contains("`no-such-name.invalid` does not resolve"),
        "{}",
        shown.stderr
    );
    assert_eq!(memory.take_journal(), Vec::<String>::new());
}

#[tokio::test]
async fn holes_that_are_easily_overlooked_are_told() {
    let memory = Memory::new();
    let rules = "egress { allow \"169.254.0.0/16\"; allow \"0.0.0.0/0\" port=53; allow \"192.0.2.0/24\"; allow \"192.0.2.7\" port=80; }";
    let shown = program_with(&memory, &["plan", "-"], &spec(rules)).await;
    for text in [
        "opens the metadata service",
        "opens every address",
        "`192.0.2.7:80` adds nothing: `192.0.2.0/24` opens it already",
    ] {
        assert!(shown.stdout.contains(text), "{text}: {}", shown.stdout);
    }
    let run = program_with(&memory, &["plan", "-"], &spec("egress { allow \"2001:db8::/32\"; }")).await;
    assert!(
        run.code == 1 && run.stderr.contains("cannot do egress to IPv6 addresses"),
        "{}",
        run.stderr
    );
}
