//! Outbound network policy, compared.

use sbx_apply::backend::Observe as _;
use sbx_apply::backend::memory::Memory;
use sbx_apply::model::Capability;
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
async fn a_name_that_leaves_the_spec_is_the_specs_doing() {
    let named = "egress { allow \"localhost\" port=443; allow \"192.0.2.1\"; }";
    let memory = applied(named).await;
    assert_eq!(fields(&memory, named).await.0, Vec::<String>::new());
    let (found, how) = fields(&memory, "egress { allow \"192.0.2.1\"; }").await;
    assert_eq!(
        found,
        [
            "egress.addresses:localhost 127.0.0.1>- pending",
            "egress.allow:localhost:443 open>- pending"
        ]
    );
    assert_eq!(how, "update spec-changed live");
}

#[tokio::test]
async fn what_a_policy_opens_is_shown_before_there_is_a_sandbox() {
    let memory = Memory::new();
    let agent = spec("egress { mode \"agent\"; allow \"192.0.2.1\" port=443; }");
    let shown = program_with(&memory, &["egress", "show", "-", "one"], &agent).await;
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(
        shown.stdout.starts_with("one: agent by the spec; not made yet\n"),
        "{}",
        shown.stdout
    );
    for said in ["192.0.2.1:443", "to be open", "the spec", "pypi.org:443/tcp", "agent: "] {
        assert!(shown.stdout.contains(said), "{said}: {}", shown.stdout);
    }
    let json = program_with(&memory, &["egress", "show", "-", "one", "--json"], &agent).await;
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert!(json["made"] == false && json["in_force"] == false, "{json}");
    let none = program_with(&memory, &["egress", "show", "-", "nobody"], &agent).await;
    assert_eq!(none.code, 1, "{}", none.stdout);
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
    let said = program_with(&memory, &["plan", "-"], &spec(TWO)).await.stdout;
    assert!(said.contains("until an apply, everything is open to it"), "{said}");
    let accepted = TWO.to_owned() + "; ignore \"egress\" reason=\"for a while\";";
    assert_eq!(fields(&memory, &accepted).await.0, Vec::<String>::new());
    let said = program_with(&memory, &["plan", "-"], &spec(&accepted)).await.stdout;
    assert!(!said.contains("everything is open"), "{said}");
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
    for (rule, text) in [
        ("2000::/3", "opens every address of the internet by IPv6"),
        ("fd20:ce::254", "opens the metadata service"),
        ("fd00:c1::a9fe:a9fe", "opens the metadata service"),
    ] {
        let shown = program_with(
            &memory,
            &["plan", "-"],
            &spec(&format!("egress {{ allow \"{rule}\"; }}")),
        )
        .await;
        assert!(shown.stdout.contains(text), "{rule}: {}", shown.stdout);
    }
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

/// A backend that also enforces policies inside.
fn both() -> Memory {
    let memory = Memory::new();
    let mut capabilities = memory.capabilities().clone();
    capabilities.able.insert(Capability::EgressGuest);
    memory.with_capabilities(capabilities)
}

#[tokio::test]
async fn rules_inside_are_seen_in_force_before_anything_else_runs() {
    let memory = both();
    let guest = "egress { enforce \"guest\"; allow \"192.0.2.0/24\"; }";
    let with_step = spec(&format!("{guest}; run \"mine\" command=\"true\""));
    run(&memory, "apply", &with_step, 0).await;
    let journal = memory.take_journal();
    let all: Vec<usize> = (0..journal.len())
        .filter(|at| journal[*at].starts_with("egress demo-one"))
        .collect();
    let start = journal
        .iter()
        .position(|entry| entry.starts_with("start demo-one"))
        .expect("starts");
    let step = journal
        .iter()
        .position(|entry| entry.contains("/bin/sh"))
        .expect("runs");
    assert!(
        all.len() == 2 && all[0] < start && start < all[1] && all[1] < step,
        "{journal:?}"
    );
    assert_eq!(fields(&memory, guest).await.0, Vec::<String>::new());

    // It takes no network, so no restart; to or from the host's it does.
    let (_, how) = fields(&memory, "egress { enforce \"guest\"; mode \"none\"; }").await;
    assert_eq!(how, "update spec-changed live");
    let (changed, how) = fields(&memory, "egress { allow \"192.0.2.0/24\"; }").await;
    assert_eq!(changed, ["egress.enforced inside, best effort>yes pending"]);
    assert_eq!(how, "update spec-changed restart");
    let (_, how) = fields(&memory, "").await;
    assert!(how.ends_with("live"), "{how}");
}

#[tokio::test]
async fn a_clone_has_no_rules_of_its_source() {
    let memory = both();
    let base =
        "sandbox \"base\" { image \"debian/12\"; egress { enforce \"guest\"; mode \"none\"; }; snapshot \"ready\"; }";
    let clones = "sandbox \"free\" { clone-from \"base\" snapshot=\"ready\"; }\n\
                  sandbox \"outer\" { clone-from \"base\" snapshot=\"ready\"; egress { mode \"none\"; }; }";
    run(&memory, "apply", &format!("{base}\n{clones}"), 0).await;
    let journal = memory.take_journal();
    let of = |name: &str| {
        let all = journal
            .iter()
            .filter(|entry| entry.starts_with(&format!("egress demo-{name} ")));
        all.cloned().collect::<Vec<_>>()
    };
    assert_eq!(of("free"), ["egress demo-free unrestricted"]);
    assert_eq!(
        of("outer"),
        ["egress demo-outer unrestricted", "egress demo-outer sandbox/outer"]
    );
    // Whatever the source is by now: its snapshot is what it was.
    let lifted = base.replace("egress { enforce \"guest\"; mode \"none\"; }; ", "");
    run(&memory, "apply", &lifted, 0).await;
    let _ = memory.take_journal();
    run(
        &memory,
        "apply",
        &format!("{lifted}\n{}", clones.replace("\"free\"", "\"late\"")),
        0,
    )
    .await;
    assert!(
        memory
            .take_journal()
            .contains(&"egress demo-late unrestricted".to_owned())
    );
}

#[tokio::test]
async fn files_that_a_policy_inside_rewrites_are_not_declared_too() {
    let guest = "egress { enforce \"guest\"; mode \"none\"; }";
    for path in ["/etc/hosts", "/etc/inittab", "/etc/sbx-apply/egress.nft"] {
        let declared = spec(&format!("{guest}; file \"{path}\" content=\"x\""));
        let said = run(&both(), "plan", &declared, 1).await.stderr;
        assert!(
            said.contains(&format!("`{path}` belongs to the egress policy")),
            "{said}"
        );
    }
}
