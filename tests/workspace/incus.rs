//! On the real daemon.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use super::scene::{Scene, addresses, ask, free_port};

const USER: &str = "user \"user\" uid=1000;";

fn sandbox(body: &str) -> String {
    format!("sandbox \"one\" {{ {USER} {body} }}")
}

#[test]
fn an_edit_on_each_side_of_a_mount_is_seen_on_the_other() {
    let Some(scene) = Scene::on_incus("both") else { return };
    scene.file("src/main", "from the host");
    let plan = {
        scene.write(&sandbox("mount \"/work\" source=\".\";"));
        scene.says(0, &["plan"])
    };
    assert!(
        plan.contains("+ mount /work") && plan.contains("root inside can"),
        "{plan}"
    );
    scene.apply(&sandbox("mount \"/work\" source=\".\";"));
    assert_eq!(scene.as_user("cat /work/src/main"), "from the host");
    assert_eq!(scene.as_user("stat -c %u:%g /work/src/main"), "1000:1000");
    assert_eq!(
        scene.as_user("echo inside > /work/src/new && stat -c %u /work/src/new"),
        "1000"
    );
    assert_eq!(
        (scene.read("src/new").as_str(), scene.owner("src/new")),
        ("inside\n", (1000, 1000))
    );
    scene.file("src/main", "edited outside");
    assert_eq!(scene.as_user("cat /work/src/main"), "edited outside");
    // What root inside writes is root's outside: ids are mapped to themselves.
    scene.inside("echo x > /work/src/of-root");
    assert_eq!(scene.owner("src/of-root"), (0, 0));
}

#[test]
fn the_spec_is_read_only_inside_and_its_includes_too() {
    let Some(scene) = Scene::on_incus("guard") else { return };
    scene.file("more.kdl", "variable \"x\" default=\"y\"\n");
    scene.file("parts/free", "free");
    let spec = format!("include \"more.kdl\"\n{}", sandbox("mount \"/work\" source=\".\";"));
    scene.apply(&spec);
    let text = scene.read("sbx.kdl");
    for file in ["/work/sbx.kdl", "/work/more.kdl"] {
        for script in [
            "echo bad > FILE",
            "rm -f FILE",
            "mv FILE /work/elsewhere",
            "ln -sf /etc/passwd FILE",
        ] {
            let said = scene.inside(&script.replace("FILE", file));
            assert!(
                ["Read-only", "busy", "exists"].iter().any(|why| said.contains(why)),
                "{script} {file}: {said}"
            );
        }
        let said = scene.as_user(&format!("echo bad > {file}"));
        assert!(said.contains("Read-only") || said.contains("denied"), "{said}");
    }
    assert_eq!(scene.inside("cat /work/sbx.kdl"), text.trim());
    assert_eq!(scene.read("sbx.kdl"), text);
    assert_eq!(scene.read("more.kdl"), "variable \"x\" default=\"y\"\n");
    assert_eq!(
        scene.as_user("echo more > /work/parts/free && cat /work/parts/free"),
        "more"
    );
    // So does it after a restart that nobody asked us for.
    scene.client(&["restart", "--force", &scene.instance()]);
    assert!(scene.inside("echo bad > /work/sbx.kdl").contains("Read-only"));
    // Whoever takes the guard away is found out.
    let guard = scene
        .devices()
        .into_iter()
        .find(|name| name.starts_with("sbx-guard"))
        .expect("one");
    // Of a running one the daemon would remove the original.
    scene.client(&["stop", "--force", &scene.instance()]);
    scene.client(&["config", "device", "remove", &scene.instance(), &guard]);
    scene.client(&["start", &scene.instance()]);
    let check = scene.says(3, &["check"]);
    assert!(
        check.contains("guarded") && check.contains("drift") && check.contains("restart"),
        "{check}"
    );
    scene.says(0, &["apply", "--yes"]);
    scene.says(0, &["check"]);
    assert!(
        scene
            .inside("echo bad > /work/sbx.kdl; echo bad > /work/more.kdl")
            .matches("Read-only")
            .count()
            == 2
    );
    // Taken out of the spec it goes while nothing runs, so that the originals stay.
    scene.write(&format!("include \"more.kdl\"\n{}", sandbox("")));
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("- mount /work") && plan.contains("[restart]"), "{plan}");
    scene.says(0, &["apply", "--yes", "--allow-changed-spec"]);
    scene.says(0, &["check"]);
    assert_eq!(scene.read("more.kdl"), "variable \"x\" default=\"y\"\n");
}

#[test]
fn a_guest_that_puts_a_link_in_the_specs_place_gets_nothing_by_it() {
    let Some(scene) = Scene::on_incus("swap") else { return };
    let secret = scene.outside().join("secret");
    fs::write(&secret, "nobody's business").expect("writes");
    scene.apply(&sandbox("mount \"/work\" source=\".\";"));
    let script = format!(
        "umount /work/sbx.kdl; rm /work/sbx.kdl; ln -s {} /work/sbx.kdl",
        secret.display()
    );
    scene.inside(&script);
    scene.client(&["restart", "--force", &scene.instance()]);
    let said = scene.client(&[
        "exec",
        &scene.instance(),
        "--",
        "/bin/sh",
        "-c",
        "cat /work/sbx.kdl; true",
    ]);
    assert!(!said.contains("nobody's business"), "{said}");
    fs::remove_file(scene.spec()).expect("removes");
}

#[test]
fn what_is_mounted_to_read_stays_so_for_root() {
    let Some(scene) = Scene::on_incus("readonly") else {
        return;
    };
    scene.file("src/main", "kept");
    scene.apply(&sandbox(""));
    let before = scene.started();
    scene.write(&sandbox("mount \"/src\" source=\"src\" readonly=true;"));
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("[restart]"), "{plan}");
    scene.says(0, &["apply", "--yes"]);
    assert_ne!(scene.started(), before);
    let said = scene.inside("mount -o remount,bind,rw /src; echo bad > /src/main; mkdir /q; mount -o bind /src /q; mount -o remount,bind,rw /q; echo bad > /q/main");
    assert_eq!(said.matches("Read-only").count(), 2, "{said}");
    assert_eq!(scene.read("src/main"), "kept");
}

#[test]
fn each_is_plugged_into_a_running_sandbox_and_taken_away() {
    let Some(scene) = Scene::on_incus("hot") else { return };
    scene.file("src/main", "here");
    let host = free_port();
    scene.apply(&sandbox(""));
    let before = scene.started();
    let bodies = [
        "mount \"/src\" source=\"src\";".to_owned(),
        "volume \"data\" path=\"/data\";".to_owned(),
        format!("port 8080 host={host};"),
    ];
    let seen =
        |scene: &Scene| scene.inside("test -e /src/main && echo mount; grep -q ' /data ' /proc/mounts && echo volume");
    for body in &bodies {
        scene.write(&sandbox(body));
        let plan = scene.says(0, &["plan"]);
        assert!(!plan.contains("restart"), "{plan}");
        // A volume stays without `--prune`, which is told.
        scene.says(0, &["apply", "--yes"]);
    }
    scene.apply(&sandbox(&bodies.concat()));
    assert_eq!(seen(&scene), "mount\nvolume");
    assert_eq!(scene.started(), before, "nothing was restarted");
    let devices = scene.devices();
    assert_eq!(
        devices.iter().filter(|name| name.starts_with("sbx-")).count(),
        4,
        "{devices:?}"
    );
    scene.write(&sandbox(""));
    let plan = scene.says(0, &["plan"]);
    assert!(
        plan.contains("- mount /src") && plan.contains("it stays, attached, until --prune"),
        "{plan}"
    );
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(seen(&scene), "volume");
    let volumes = || scene.client(&["storage", "volume", "list", "default", "type=custom", "-f", "csv"]);
    assert!(volumes().contains(&scene.environment));
    scene.says(0, &["apply", "--yes", "--prune"]);
    assert_eq!(seen(&scene), "");
    assert!(!volumes().contains(&scene.environment), "{}", volumes());
    assert_eq!(scene.started(), before, "nothing was restarted");
    scene.says(0, &["check"]);
}

#[test]
fn a_volume_keeps_its_data_when_its_sandbox_is_made_anew() {
    let Some(scene) = Scene::on_incus("volume") else { return };
    let body = "volume \"data\" path=\"/data\";";
    let base = "sandbox \"base\" { state \"stopped\"; snapshot \"ready\"; env A=\"1\" }";
    scene.apply(&sandbox(body));
    assert_eq!(
        scene.as_user("echo years > /data/work && stat -c %u:%a /data"),
        "1000:755"
    );
    // Another image's name, another source: it is made anew.
    let spec = format!("{base}\nsandbox \"one\" {{ {USER} clone-from \"base\" snapshot=\"ready\"; {body} }}");
    let said = scene.apply(&spec);
    assert!(said.contains("replace") || said.contains("-/+"), "{said}");
    assert_eq!(scene.as_user("cat /data/work"), "years");
    // And where somebody has deleted it.
    scene.client(&["delete", "--force", &scene.instance()]);
    scene.apply(&spec);
    assert_eq!(scene.as_user("cat /data/work"), "years");
    let shown = scene.says(0, &["show"]);
    assert!(shown.contains("data at /data"), "{shown}");
    scene.says(0, &["destroy", "--allow-data-loss", "--yes"]);
    let left = scene.client(&["storage", "volume", "list", "default", "type=custom", "-f", "csv"]);
    assert!(!left.contains(&scene.environment), "{left}");
}

#[test]
fn a_port_answers_on_this_machine_and_nowhere_else() {
    let Some(scene) = Scene::on_incus("port") else { return };
    let (host, udp) = (free_port(), free_port());
    scene.apply(&sandbox(&format!(
        "port 8080 host={host}; port 53 host={udp}; port 53 host={udp} protocol=\"udp\";"
    )));
    scene.inside("(while true; do echo hello | nc -l -p 8080; done) >/dev/null 2>&1 &");
    sleep(Duration::from_millis(500));
    let answer = || {
        (0..10).find_map(|_| {
            ask((Ipv4Addr::LOCALHOST, host).into()).or_else(|| {
                sleep(Duration::from_millis(200));
                None
            })
        })
    };
    assert_eq!(answer().as_deref(), Some("hello\n"));
    let six = (0..10).find_map(|_| {
        sleep(Duration::from_millis(200));
        ask((Ipv6Addr::LOCALHOST, host).into())
    });
    assert_eq!(six.as_deref(), Some("hello\n"));
    for other in addresses() {
        assert_eq!(ask(SocketAddr::new(other.into(), host)), None, "{other}");
    }
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("binds");
    let taken = UdpSocket::bind((Ipv4Addr::LOCALHOST, udp)).expect_err("somebody listens there");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    let inside = bound_inside(&scene, 53);
    let mut heard = [0; 8];
    // What is sent before the proxy listens is lost, as UDP is.
    let arrived = (0..20).any(|_| {
        socket.send_to(b"ping", (Ipv4Addr::LOCALHOST, udp)).expect("sends");
        inside.recv(&mut heard).is_ok_and(|size| &heard[..size] == b"ping")
    });
    assert!(arrived, "a datagram to the port arrives inside");
    for other in addresses() {
        // Nobody listens there, which a bind proves.
        UdpSocket::bind((other, udp)).expect("the port is not open elsewhere");
    }
    // By hand opened to all: found, and closed again.
    let (instance, device) = (scene.instance(), "sbx-port-8080-tcp");
    let (listen, connect) = (format!("listen=tcp:0.0.0.0:{host}"), "connect=tcp:127.0.0.1:8080");
    scene.client(&["config", "device", "remove", &instance, device]);
    scene.client(&["config", "device", "remove", &instance, "sbx-port-8080-tcp-ipv6"]);
    scene.client(&[
        "config",
        "device",
        "add",
        &instance,
        device,
        "proxy",
        &listen,
        connect,
        "bind=host",
    ]);
    let check = scene.says(3, &["check"]);
    assert!(check.contains("port 8080") && check.contains("drift"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    scene.says(0, &["check"]);
    for other in addresses() {
        assert_eq!(ask(SocketAddr::new(other.into(), host)), None, "{other}");
    }
    assert_eq!(answer().as_deref(), Some("hello\n"));
}

/// A socket in a sandbox's network.
fn bound_inside(scene: &Scene, port: u16) -> UdpSocket {
    let namespace = fs::File::open(format!("/proc/{}/ns/net", scene.started())).expect("it runs");
    let bound = std::thread::spawn(move || {
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("enters");
        UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).expect("binds")
    });
    let socket = bound.join().expect("binds");
    let patience = Some(Duration::from_millis(500));
    socket.set_read_timeout(patience).expect("sets");
    socket
}

#[test]
fn a_port_that_somebody_has_is_told_before_anything_is_touched() {
    let Some(scene) = Scene::on_incus("taken") else { return };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listens");
    let host = listener.local_addr().expect("has one").port();
    let spec = sandbox(&format!("port 8080 host={host};"));
    scene.write(&spec);
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains(&format!("port {host} of this machine is taken")) && said.contains("sbx.kdl:4"),
        "{said}"
    );
    assert_eq!(scene.client(&["list", &scene.environment, "-f", "csv"]), "");
    drop(listener);
    scene.apply(&spec);
}

#[test]
fn what_hands_take_away_or_change_is_drift_and_repaired() {
    let Some(scene) = Scene::on_incus("hands") else { return };
    scene.file("src/main", "here");
    scene.file("other/main", "there");
    let host = free_port();
    let body = format!("mount \"/src\" source=\"src\"; volume \"data\" path=\"/data\"; port 8080 host={host};");
    scene.apply(&sandbox(&body));
    let instance = scene.instance();
    scene.client(&[
        "config",
        "device",
        "add",
        &instance,
        "by-hand",
        "disk",
        &format!("source={}", scene.outside().display()),
        "path=/theirs",
    ]);
    assert!(
        scene.says(0, &["check"]).contains("No changes"),
        "what hands attach is theirs"
    );
    let mount = scene
        .devices()
        .into_iter()
        .find(|name| name.starts_with("sbx-mount"))
        .expect("one");
    let other = format!("source={}", scene.repo().join("other").display());
    let cases: [(Vec<&str>, &str); 7] = [
        (vec!["remove", &instance, &mount], "mount /src"),
        (vec!["set", &instance, &mount, &other], "mount /src"),
        (vec!["set", &instance, &mount, "shift=false"], "mount /src"),
        (vec!["remove", &instance, "sbx-volume-data"], "volume data"),
        (
            vec!["set", &instance, "sbx-volume-data", "path=/elsewhere"],
            "volume data",
        ),
        (vec!["remove", &instance, "sbx-port-8080-tcp"], "port 8080"),
        (vec!["remove", &instance, "sbx-port-8080-tcp-ipv6"], "port 8080"),
    ];
    for (words, what) in cases {
        scene.client(&[&["config", "device"], &words[..]].concat());
        let check = scene.says(3, &["check"]);
        assert!(check.contains(what) && check.contains("drift"), "{words:?}: {check}");
        scene.says(0, &["apply", "--yes"]);
        assert!(scene.says(0, &["check"]).contains("No changes"), "{words:?}");
        assert_eq!(scene.inside("cat /src/main"), "here");
    }
    assert!(scene.devices().contains(&"by-hand".to_owned()));
}

#[test]
fn hostile_sources_are_refused() {
    let Some(scene) = Scene::on_incus("hostile") else {
        return;
    };
    scene.file("src/main", "here");
    symlink(scene.outside(), scene.repo().join("out")).expect("links");
    symlink("src", scene.repo().join("in")).expect("links");
    let _socket = std::os::unix::net::UnixListener::bind(scene.repo().join("socket")).expect("listens");
    let made = std::process::Command::new("mkfifo")
        .arg(scene.repo().join("fifo"))
        .status();
    assert!(made.expect("mkfifo runs").success());
    let device = std::process::Command::new("mknod")
        .arg(scene.repo().join("device"))
        .args(["c", "1", "3"])
        .status();
    let mut refused = vec![
        ("mount \"/x\" source=\"out\";", "leads outside"),
        ("mount \"/x\" source=\"../outside\";", "leads outside"),
        ("mount \"/x\" source=\"socket\";", "device, socket or pipe"),
        ("mount \"/x\" source=\"fifo\";", "device, socket or pipe"),
        ("mount \"/x\" source=\"/etc\";", "\"/etc\""),
        ("mount \"/x\" source=\"sbx.kdl\";", "can only be mounted to be read"),
        (
            "mount \"/x\" source=\".\"; mount \"/y\" source=\"src\";",
            "lies in a folder that a sandbox may write to",
        ),
        (
            "mount \"/x\" source=\"src\"; file \"/x/y\" content=\"z\";",
            "whose contents are not the sandbox's",
        ),
    ];
    if device.is_ok_and(|status| status.success()) {
        refused.push(("mount \"/x\" source=\"device\";", "device, socket or pipe"));
    }
    for (body, why) in refused {
        scene.write(&sandbox(body));
        let said = scene.says(1, &["apply", "--yes"]);
        assert!(said.contains(why), "{body}: {said}");
    }
    assert_eq!(scene.client(&["list", &scene.environment, "-f", "csv"]), "");
    scene.file("parts/more.kdl", "variable \"x\" default=\"y\"\n");
    let include = format!("include \"parts/more.kdl\"\n{}", sandbox("mount \"/x\" source=\".\";"));
    scene.write(&include);
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(said.contains("parts/more.kdl could be put aside from inside"), "{said}");
    // A link that stays below the root is what it leads to.
    scene.apply(&sandbox("mount \"/x\" source=\"in\";"));
    assert_eq!(scene.inside("cat /x/main"), "here");
}

#[test]
fn the_tools_own_folders_and_hooks_are_told() {
    let Some(scene) = Scene::on_incus("hooks") else { return };
    scene.file(".git/hooks/post-checkout", "#!/bin/sh\n");
    scene.write(&sandbox("mount \"/work\" source=\".\";"));
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("can write to .git, and hooks in it"), "{plan}");
    scene.write(&sandbox("mount \"/work\" source=\".\" readonly=true;"));
    let plan = scene.says(0, &["plan"]);
    assert!(!plan.contains("hooks in it"), "{plan}");
    let nobody = "sandbox \"one\" { user \"dev\" uid=1234; mount \"/work\" source=\".\"; }";
    scene.write(nobody);
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("`uid=1000` makes them one"), "{plan}");
}

#[test]
fn a_clone_has_nothing_of_its_sources() {
    let Some(scene) = Scene::on_incus("clone") else { return };
    scene.file("src/main", "here");
    let host = free_port();
    scene.apply(&format!(
        "sandbox \"base\" {{ mount \"/src\" source=\"src\"; volume \"data\" path=\"/data\"; port 80 host={host}; snapshot \"ready\"; }}\n\
         sandbox \"one\" {{ clone-from \"base\" snapshot=\"ready\"; }}"
    ));
    assert_eq!(
        scene.inside("find /src /data -type f; grep -c -e ' /src ' -e ' /data ' /proc/mounts"),
        "0"
    );
}

/// Whether a path is really gone, for who reads this.
#[test]
fn copies_of_guarded_files_go_with_their_sandbox() {
    let Some(scene) = Scene::on_incus("copies") else { return };
    scene.apply(&sandbox("mount \"/work\" source=\".\";"));
    // Of each daemon apart.
    let daemons = fs::read_dir(scene.repo().join("../state.guarded")).expect("is there");
    let daemons: Vec<PathBuf> = daemons.flatten().map(|entry| entry.path()).collect();
    let guards = daemons[0].join(format!("default.{}", scene.instance()));
    assert_eq!(fs::read_dir(&guards).expect("is there").count(), 1);
    scene.says(0, &["destroy", "--allow-data-loss", "--yes"]);
    assert!(!guards.exists());
}

#[test]
fn what_the_tool_works_with_is_never_mounted() {
    let Some(scene) = Scene::on_incus("own") else { return };
    fs::create_dir_all(scene.repo().join("../state.guarded")).expect("makes");
    super::local::what_it_works_with_is_refused(&scene, &[("..", "/state"), ("../state.guarded", "/state.guarded")]);
}

#[test]
fn what_lies_where_somebody_else_can_write_is_not_mounted() {
    let Some(scene) = Scene::on_incus("reach") else { return };
    scene.file("src/sub/main", "here");
    scene.file("more/main", "there");
    let two = |one: &str, two: &str| format!("{}\nsandbox \"two\" {{ {two} }}", sandbox(one));
    let outer = "mount \"/work\" source=\"src\";";
    let inner = "mount \"/sub\" source=\"src/sub\";";
    scene.apply(&sandbox(outer));
    // It left the spec, and can still write there.
    scene.write(&format!("sandbox \"two\" {{\n {inner}\n}}"));
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains("plan::nested-mount") && said.contains("`one` can write to") && said.contains("sbx.kdl:5"),
        "{said}"
    );
    // One that loses it does so first, and one that keeps a part of it is restarted.
    scene.apply(&two("", inner));
    scene.apply(&two(outer, ""));
    let narrowed = "mount \"/work\" source=\"src/sub\";";
    scene.write(&sandbox(narrowed));
    let plan = scene.says(0, &["plan"]);
    assert!(plan.contains("mount /work") && plan.contains("[restart]"), "{plan}");
    scene.apply(&sandbox(narrowed));
    // The other way round, as hands may have attached it.
    let (instance, source) = (
        format!("{}-two", scene.environment),
        scene.repo().join("more").display().to_string(),
    );
    let source = format!("source={source}");
    scene.client(&[
        "config",
        "device",
        "add",
        &instance,
        "by-hand",
        "disk",
        &source,
        "path=/theirs",
        "readonly=true",
    ]);
    scene.write(&sandbox("mount \"/work\" source=\".\";"));
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains("plan::nested-mount") && said.contains("`two` has"),
        "{said}"
    );
}

#[test]
fn two_sandboxes_swap_their_ports() {
    let Some(scene) = Scene::on_incus("ports") else { return };
    super::ports::swap_their_ports(&scene);
}

#[test]
fn a_volume_has_the_size_that_the_spec_says() {
    let Some(scene) = Scene::on_incus("size") else { return };
    let sized = |size: &str| sandbox(&format!("volume \"data\" path=\"/data\" {size};"));
    let volume = || {
        let all = scene.client(&["storage", "volume", "list", "default", "type=custom", "-f", "json"]);
        let all: serde_json::Value = serde_json::from_str(&all).expect("JSON");
        let ours = all.as_array().expect("a list").iter().find(|volume| {
            let label = &volume["config"]["user.sbx-apply.environment"];
            label.as_str() == Some(scene.environment.as_str())
        });
        let ours = ours.expect("is there");
        (ours["name"].clone(), ours["config"]["size"].clone())
    };
    scene.apply(&sized("size=\"64MiB\""));
    assert_eq!(volume().1, "64MiB");
    scene.inside("echo kept > /data/work");
    let before = scene.started();
    scene.apply(&sized("size=\"128MiB\""));
    assert_eq!((volume().1, scene.started()), ("128MiB".into(), before));
    scene.write(&sized("size=\"64MiB\""));
    let said = scene.says(1, &["apply", "--yes"]);
    assert!(
        said.contains("cannot shrink to 64MiB") && said.contains("sbx.kdl:4"),
        "{said}"
    );
    // By hand it is drift, and put back.
    let name = volume().0.as_str().expect("a name").to_owned();
    scene.client(&["storage", "volume", "set", "default", &name, "size=64MiB"]);
    scene.write(&sized("size=\"128MiB\""));
    let check = scene.says(3, &["check"]);
    assert!(check.contains("size: 64MiB → 128MiB (drift)"), "{check}");
    scene.says(0, &["apply", "--yes"]);
    assert_eq!(volume().1, "128MiB");
    // Without a word about it, it stays.
    scene.apply(&sized(""));
    assert_eq!(volume().1, "128MiB");
    assert_eq!(scene.inside("cat /data/work"), "kept");
}
