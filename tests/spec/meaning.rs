//! Rules of meaning, each on a small spec.

use std::os::unix::ffi::OsStrExt as _;

use sbx_apply::model::{Data, FileState, Memory, Mode, OnStale, Origin, Owner, Sandbox, SandboxName, Script, Seconds};
use sbx_apply::spec::{self, Format, Request};

use super::twins::load;

fn request(text: &str) -> Request {
    Request::text("spec.kdl", format!("environment \"e\"\n{text}"), Some(Format::Kdl))
}

fn sandbox(text: &str, name: &str) -> Sandbox {
    let name = SandboxName::new(name).expect("a name");
    load(&request(text)).sandboxes.swap_remove(&name).expect("the sandbox")
}

fn codes(request: &Request) -> Vec<&'static str> {
    match spec::load(request) {
        Ok(_) => Vec::new(),
        Err(rejected) => rejected.diagnostics.iter().map(|diagnostic| diagnostic.code).collect(),
    }
}

fn content(sandbox: &Sandbox, path: &str) -> String {
    let file = sandbox
        .files
        .iter()
        .find(|(key, _)| key.as_str() == path)
        .map(|(_, file)| file)
        .expect("the file");
    match &file.state {
        FileState::Content(content) => match &content.data {
            Data::Bytes(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
            Data::Path(path) => panic!("{}", path.display()),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_nearest_layer_wins() {
    let text = r#"
        defaults { image "one"; cpu 1; memory "1GiB"; env A="defaults" B="defaults"; run "first" command="d"; snapshot "s"; }
        template "t" { cpu 2; env B="t" C="t"; run "second" command="t"; file "/x" content="t" mode="0600"; }
        template "u" { cpu 3; run "first" command="u"; }
        sandbox "base" { snapshot "ready"; }
        sandbox "a" {
            use "t" "u"
            clone-from "base"
            env C="a"
            file "/x" content="a"
            run "third" command="a"
            snapshot "r"
        }
    "#;
    let a = sandbox(text, "a");
    assert_eq!(a.cpu.expect("cpu").0, 3);
    let Memory::Bytes(bytes) = a.memory.clone().expect("memory").0 else {
        panic!("a share")
    };
    assert_eq!(bytes.0, 1 << 30);
    let env: Vec<_> = a.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(env, ["A=defaults", "B=t", "C=a"]);
    let steps: Vec<_> = a
        .run
        .iter()
        .map(|step| match &step.script {
            Script::Command(command) => format!("{} {command}", step.name),
            Script::File { name, .. } => name.clone(),
        })
        .collect();
    assert_eq!(steps, ["first u", "second t", "third a"]);
    let snapshots: Vec<_> = a.snapshots.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(snapshots, ["s", "r"]);
    // By key, whole: the template's mode goes with its content.
    assert_eq!(a.files.values().next().expect("a file").mode, Mode::FILE);
    assert!(
        matches!(
            a.origin,
            Origin::Clone {
                on_stale: OnStale::Keep,
                on_stale_explicit: false,
                ..
            }
        ),
        "{:?}",
        a.origin
    );
}

#[test]
fn owners_and_modes_are_filled_in() {
    let text = r#"
        sandbox "base" { image "i"; user "dev"; }
        sandbox "middle" { clone-from "base"; }
        sandbox "a" {
            clone-from "middle"
            file "/etc/x" content=""
            file "/home/dev/x" content=""
            file "/home/dev/secret" secret="S"
            file "/home/developer/x" content=""
            file "/home/dev/root" content="" owner=0
            file "/etc/y" content="" group=7
        }
    "#;
    let a = sandbox(text, "a");
    assert_eq!(
        a.user.as_ref().map(|user| (user.name.as_str(), user.uid)),
        Some(("dev", 1000))
    );
    let dev = Owner { uid: 1000, gid: 1000 };
    let of = |path: &str| {
        let file = a.files.iter().find(|(key, _)| key.as_str() == path).expect(path).1;
        (file.owner, file.mode)
    };
    assert_eq!(of("/etc/x"), (Owner::ROOT, Mode::FILE));
    assert_eq!(of("/home/dev/x"), (dev, Mode::FILE));
    assert_eq!(of("/home/dev/secret"), (dev, Mode::SECRET));
    assert_eq!(of("/home/developer/x"), (Owner::ROOT, Mode::FILE));
    assert_eq!(of("/home/dev/root"), (Owner::ROOT, Mode::FILE));
    assert_eq!(of("/etc/y"), (Owner { uid: 0, gid: 7 }, Mode::FILE));
}

#[test]
fn counts_expand() {
    let text = r#"
        defaults { image "i"; }
        sandbox "task" count=3 { port 80 host=8080; }
        sandbox "one" count=1
        sandbox "after" { depends-on "task" "one"; }
        sandbox "second" { depends-on "task-2"; }
    "#;
    let desired = load(&request(text));
    let names: Vec<_> = desired.sandboxes.keys().map(SandboxName::as_str).collect();
    assert_eq!(names, ["task-1", "task-2", "task-3", "one-1", "after", "second"]);
    let needs = |name: &str| -> Vec<String> {
        desired.sandboxes[&SandboxName::new(name).expect("a name")]
            .depends_on
            .iter()
            .map(ToString::to_string)
            .collect()
    };
    assert_eq!(needs("after"), ["one-1", "task-1", "task-2", "task-3"]);
    assert_eq!(needs("second"), ["task-2"]);
    let ports: Vec<_> = desired
        .sandboxes
        .values()
        .flat_map(|s| &s.ports)
        .map(|port| port.host)
        .collect();
    assert_eq!(ports, [8080, 8081, 8082]);
    assert_eq!(desired.sandboxes[0].base.as_str(), "task");
}

#[test]
fn variables_come_from_the_spec_or_the_command_line() {
    let text = r#"
        variable "greeting" default="hello $${there}"
        variable "size"
        sandbox "a" { image "i"; memory "${size}"; file "/etc/${size}" content="${greeting} $${greeting} $HOME $(x) ${y:-z}"; }
    "#;
    let mut request = request(text);
    assert_eq!(codes(&request), ["spec::unset-variable", "spec::unset-variable"]);
    request.variables = vec![("size".to_owned(), "2GiB".to_owned())];
    let a = load(&request).sandboxes[0].clone();
    assert_eq!(
        content(&a, "/etc/2GiB"),
        "hello ${there} ${greeting} $HOME $(x) ${y:-z}"
    );
}

#[test]
fn the_command_line_overrides_environment_and_backend() {
    let mut request = request("backend \"incus\" { project \"p\"; }\nsandbox \"a\" { image \"i\"; }");
    let desired = load(&request);
    assert_eq!(desired.backend.settings.get("project").map(String::as_str), Some("p"));
    request.environment = Some("branch".to_owned());
    request.backend = Some("incus".to_owned());
    let desired = load(&request);
    assert_eq!(
        (desired.environment.as_str(), desired.backend.settings.len()),
        ("branch", 1)
    );
    request.backend = Some("local".to_owned());
    let desired = load(&request);
    assert_eq!(
        (desired.backend.name.as_str(), desired.backend.settings.len()),
        ("local", 0)
    );
}

#[test]
fn defaults_of_steps_and_readiness() {
    let a = sandbox("sandbox \"a\" { image \"i\"; run \"r\" command=\"x\"; ready; }", "a");
    assert_eq!(a.run[0].timeout, Seconds(600));
    let ready = a.ready.expect("readiness");
    assert_eq!((ready.command, ready.timeout), (None, Seconds(60)));
}

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(path, text).expect("written");
    }
    folder
}

#[test]
fn includes_are_relative_read_once_and_may_mix_formats() {
    let folder = folder(&[
        (
            "sbx.kdl",
            "environment \"e\"\ninclude \"parts/one.yaml\" \"parts/two.kdl\"\nsandbox \"a\" { use \"shared\"; image \"i\"; }",
        ),
        ("parts/one.yaml", "include: [../common/shared.kdl]\n"),
        (
            "parts/two.kdl",
            "include \"../common/shared.kdl\"\nvariable \"unused-here\" default=\"x\"\n",
        ),
        (
            "common/shared.kdl",
            "template \"shared\" { file \"/x\" source=\"x.txt\"; }",
        ),
        ("common/x.txt", "beside its file"),
    ]);
    let desired = load(&Request::file(folder.path().join("sbx.kdl")));
    assert_eq!(content(&desired.sandboxes[0], "/x"), "beside its file");
}

#[test]
fn what_is_declared_on_its_own_is_no_part_of_a_tree() {
    let folder = folder(&[
        (
            "sbx.kdl",
            r#"
            environment "e"
            sandbox "a" {
                image "i"
                tree "/srv" source="tree" { exclude "*.log" "!keep.log" "target/"; }
                file "/srv/own" content="own"
                tree "/srv/inner" source="other"
            }
        "#,
        ),
        ("tree/own", "from the tree"),
        ("tree/inner/x", "from the outer tree"),
        ("tree/run.log", ""),
        ("tree/keep.log", ""),
        ("tree/target/x", ""),
        ("tree/bin/tool", "#!"),
        ("other/y", "y"),
    ]);
    let tool = folder.path().join("tree/bin/tool");
    std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    std::os::unix::fs::symlink("/anywhere", folder.path().join("tree/link")).expect("a link");
    let desired = load(&Request::file(folder.path().join("sbx.kdl")));
    let trees: Vec<_> = desired.sandboxes[0].trees.values().collect();
    let names = |index: usize| trees[index].entries.keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(names(0), ["bin", "bin/tool", "keep.log", "link"]);
    assert_eq!(names(1), ["y"]);
    assert_eq!(trees[0].exclude, ["*.log", "!keep.log", "target/"]);
    let sbx_apply::model::Entry::File { mode, .. } = &trees[0].entries["bin/tool"] else {
        panic!("no file")
    };
    assert_eq!(*mode, Mode::DIRECTORY);
}

#[test]
fn all_that_cannot_be_copied_is_told_and_no_endless_list_of_it() {
    let folder = folder(&[
        (
            "sbx.kdl",
            "environment \"e\"\nsandbox \"a\" { image \"i\"; tree \"/t\" source=\"t\" { exclude \"c-*\"; }; }",
        ),
        ("t/good", ""),
    ]);
    let socket =
        |name: String| std::os::unix::net::UnixListener::bind(folder.path().join("t").join(name)).expect("a socket");
    let request = Request::file(folder.path().join("sbx.kdl"));
    let messages = || match spec::load(&request) {
        Ok(_) => Vec::new(),
        Err(rejected) => rejected
            .diagnostics
            .iter()
            .map(|diagnostic| diagnostic.message.clone())
            .collect(),
    };
    let special = |name: &str| format!("\"t/{name}\" is a device, socket or pipe, which cannot be copied");
    let _few = ["b", "a", "c-excluded"].map(|name| socket(name.to_owned()));
    let name = std::ffi::OsStr::from_bytes(b"a\xFF");
    std::fs::write(folder.path().join("t").join(name), "").expect("writes");
    assert_eq!(
        messages(),
        [special("a"), "\"a\u{FFFD}\" is not UTF-8".to_owned(), special("b")]
    );
    let _many: Vec<_> = (10..40).map(|index| socket(format!("d{index}"))).collect();
    let messages = messages();
    assert_eq!(messages.len(), 21);
    assert_eq!(messages[19], special("d26"));
    assert_eq!(messages[20], "\"t\" holds 13 more that cannot be copied");
}

#[test]
fn special_files_are_errors_and_large_ones_are_hashed() {
    let folder = folder(&[
        (
            "sbx.kdl",
            "environment \"e\"\nsandbox \"a\" { image \"i\"; tree \"/t\" source=\"t\"; file \"/f\" source=\"t/socket\"; }",
        ),
        (
            "large.kdl",
            "environment \"e\"\nsandbox \"a\" { image \"i\"; file \"/f\" source=\"large\"; }",
        ),
        ("t/x", ""),
        ("large", &"x".repeat((1 << 20) + 1)),
    ]);
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("t/socket")).expect("a socket");
    let request = Request::file(folder.path().join("sbx.kdl"));
    let mut found = codes(&request);
    found.sort_unstable();
    assert_eq!(found, ["spec::source-not-a-file", "spec::special-file"]);
    let desired = load(&Request::file(folder.path().join("large.kdl")));
    let file = desired.sandboxes[0].files.values().next().expect("a file");
    let FileState::Content(content) = &file.state else {
        panic!("no content")
    };
    assert!(
        matches!(&content.data, Data::Path(path) if path.ends_with("large")),
        "{content:?}"
    );
    assert_eq!(content.size, (1 << 20) + 1);
}

#[test]
fn the_root_can_be_wider_than_the_specs_folder() {
    let folder = folder(&[
        (
            "env/sbx.kdl",
            "environment \"e\"\nsandbox \"a\" { image \"i\"; file \"/f\" source=\"../shared\"; }",
        ),
        ("shared", "x"),
    ]);
    let mut request = Request::file(folder.path().join("env/sbx.kdl"));
    assert_eq!(codes(&request), ["spec::outside-root"]);
    request.root = Some(folder.path().to_owned());
    assert_eq!(codes(&request), Vec::<&str>::new());
    request.root = Some(folder.path().join("nowhere"));
    assert_eq!(codes(&request), ["spec::missing-root"]);
}

#[test]
fn formats_are_told_from_names_and_texts() {
    let load_text = |text: &str| codes(&Request::text("<stdin>", text, None));
    assert!(load_text("environment \"e\"\nsandbox \"a\" { image \"i\"; }").is_empty());
    assert!(load_text("# a comment\nenvironment: e\nsandboxes: { a: { image: i } }").is_empty());
    assert!(load_text("---\nenvironment: e\nsandboxes: { a: { image: i } }").is_empty());
    assert_eq!(codes(&Request::file("spec.toml")), ["spec::unreadable"]);
    assert_eq!(codes(&Request::file("nowhere.kdl")), ["spec::unreadable"]);
}

#[test]
fn rules_that_open_sandboxes_are_told_apart_by_them() {
    let three = "defaults { image \"i\"; }\nsandbox \"db\"\nsandbox \"cache\" count=2\n";
    let rules = "allow sandbox=\"db\" port=5432; allow sandbox=\"cache\" port=5432; allow \"db\" port=5432;";
    let text = format!("{three}sandbox \"web\" {{ egress {{ {rules} }}; }}");
    let web = sandbox(&text, "web");
    let open = web.egress.iter().flat_map(|policy| &policy.allow);
    let open: Vec<String> = open.map(|rule| rule.opening().to_string()).collect();
    assert_eq!(
        open,
        [
            "sandbox/db:5432",
            "sandbox/cache-1:5432",
            "sandbox/cache-2:5432",
            "db:5432"
        ]
    );
    let twice = text.replace("allow \"db\"", "allow sandbox=\"db\"");
    assert_eq!(codes(&request(&twice)), ["spec::duplicate-name"]);
}

#[test]
fn counts_that_are_opened_to_counts_are_bounded() {
    let all = ["a", "b", "c"];
    let rules = all.map(|name| format!("allow sandbox=\"{name}\" port=1;")).concat();
    let text = all.map(|name| format!("sandbox \"{name}\" count=900 {{ image \"i\"; egress {{ {rules} }}; }}\n"));
    assert_eq!(codes(&request(&text.concat())), ["spec::too-large"]);
}
