//! What the simulation does with real containers.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio_tungstenite::tungstenite::Message;

use super::plain::Plain;
use super::sim::{Dialect, Knobs, Sim};

/// A simulation, a connection to it, and the words of its dialect.
struct Scene {
    sim: Sim,
    plain: Plain,
}

impl Scene {
    async fn new(dialect: Dialect) -> Self {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let plain = Plain::connect(&sim).await;
        Self { sim, plain }
    }

    fn v26(&self) -> bool {
        self.sim.dialect() == Dialect::V26
    }

    /// Makes a container that does not run, and gives its id.
    async fn create(&mut self, name: &str) -> Value {
        let made = match self.v26() {
            true => {
                let image = json!({ "name": "alpine:3.20:amd64:default", "version": "20251101_07:42" });
                let wanted = json!([{ "name": name, "pool": self.sim.pool(), "image": image, "autostart": false }]);
                self.plain.done("container.create", wanted).await
            }
            false => {
                let wanted = json!([{ "name": name, "image": "alpine/3.20", "autostart": false }]);
                self.plain.done("virt.instance.create", wanted).await
            }
        };
        made["id"].clone()
    }

    async fn start(&mut self, id: &Value) {
        match self.v26() {
            true => drop(self.plain.call("container.start", json!([id])).await),
            false => drop(self.plain.done("virt.instance.start", json!([id])).await),
        }
    }

    async fn stop(&mut self, id: &Value) {
        match self.v26() {
            true => drop(self.plain.done("container.stop", json!([id, { "force": true }])).await),
            false => drop(
                self.plain
                    .done("virt.instance.stop", json!([id, { "force": true }]))
                    .await,
            ),
        }
    }

    fn dataset(&self, name: &str) -> String {
        match self.v26() {
            true => format!("{}/.truenas_containers/containers/{name}", self.sim.pool()),
            false => format!("{}/.ix-virt/containers/{name}", self.sim.pool()),
        }
    }

    /// The path of a container's file on the machine.
    fn path(&self, name: &str, below: &str) -> String {
        let pool = self.sim.pool();
        match self.v26() {
            true => format!("/mnt/.truenas_containers/{pool}/containers/{name}{below}"),
            false => format!("/var/lib/incus/storage-pools/{pool}/containers/{name}/rootfs{below}"),
        }
    }

    /// A method of snapshots.
    fn snapshots(&self, verb: &str) -> String {
        match self.sim.dialect() {
            Dialect::V25_04 => format!("zfs.snapshot.{verb}"),
            _ => format!("pool.snapshot.{verb}"),
        }
    }

    /// Puts a text into a container by the web shell, and gives what it says until it ends.
    async fn shell(&mut self, id: &Value, input: &str) -> String {
        let token = self.plain.call("auth.generate_token", json!([])).await;
        let mut shell = Plain::open(&self.sim, "/websocket/shell").await;
        let key = if self.v26() { "container_id" } else { "virt_instance_id" };
        shell
            .send(json!({ "token": token, "options": { key: id, "command": "/bin/sh" } }).to_string())
            .await;
        let connected = shell.next_json().await;
        assert_eq!(connected["msg"], "connected", "{connected}");
        self.plain
            .call("core.resize_shell", json!([connected["id"], 100, 40]))
            .await;
        shell
            .send_message(Message::binary(format!("{input}\nexit\n").into_bytes()))
            .await;
        let mut said = String::new();
        while let Some(message) = shell.next().await {
            match message {
                Message::Binary(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
                Message::Close(_) => break,
                _ => {}
            }
        }
        said
    }
}

/// In each dialect, where there is a daemon.
async fn everywhere(check: impl AsyncFn(&mut Scene)) {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        check(&mut Scene::new(dialect).await).await;
    }
}

#[tokio::test]
async fn a_container_lives_and_dies() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in [Dialect::V25_04, Dialect::V25_10] {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let mut plain = Plain::connect(&sim).await;
        plain.call("core.subscribe", json!(["core.get_jobs"])).await;
        let wanted = json!([{
            "name": "one", "image": "alpine/3.20", "autostart": false, "cpu": "1", "memory": 268_435_456,
            "environment": { "SBX_APPLY_A": "b" },
        }]);
        let made = plain.done("virt.instance.create", wanted.clone()).await;
        assert_eq!(made["id"], "one");
        assert_eq!(made["status"], "STOPPED");
        assert_eq!(made["memory"], 268_435_456);
        assert_eq!(made["environment"], json!({ "SBX_APPLY_A": "b" }));
        assert_eq!(made["storage_pool"], sim.pool());
        assert_eq!(made["aliases"], json!([]));
        assert_eq!(made.get("privileged_mode").is_some(), dialect == Dialect::V25_10);
        let again = plain.job("virt.instance.create", wanted).await;
        assert_eq!(
            again["error"],
            "[EINVAL] virt_instance_create.name: Name 'one' already exists\n"
        );
        plain.done("virt.instance.start", json!(["one"])).await;
        let running = loop {
            let found = plain.call("virt.instance.get_instance", json!(["one"])).await;
            if found["aliases"] != json!([]) {
                break found;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        assert_eq!(running["status"], "RUNNING");
        let change = json!(["one", { "memory": null, "environment": { "OTHER": "1" } }]);
        let changed = plain.done("virt.instance.update", change).await;
        assert_eq!((&changed["memory"], &changed["cpu"]), (&Value::Null, &json!("1")));
        assert_eq!(changed["environment"], json!({ "OTHER": "1" }));
        plain
            .done("virt.instance.stop", json!(["one", { "timeout": 10 }]))
            .await;
        plain.done("virt.instance.delete", json!(["one"])).await;
        let error = plain.fail("virt.instance.get_instance", json!(["one"])).await;
        assert_eq!(error["code"], -32602);
        assert_eq!(error["data"]["error"], 22);
        let text = "VirtInstance one does not exist";
        assert_eq!(error["data"]["reason"], format!("[ENOENT] None: {text}"));
        assert_eq!(error["data"]["extra"], json!([[null, text, 2]]));
        let missing = plain.job("virt.instance.start", json!(["one"])).await;
        assert_eq!(missing["exc_info"]["errno"], 2);
        // Each job was added before its answer, and a success was told twice.
        let told = |state: &str| {
            let states = plain.events.iter().filter(|event| event["params"]["id"] == 1);
            states
                .filter(|event| event["params"]["fields"]["state"] == state)
                .count()
        };
        assert_eq!((told("WAITING"), told("RUNNING"), told("SUCCESS")), (1, 1, 2));
        assert_eq!(plain.events[0]["params"]["msg"], "added");
    }
}

#[tokio::test]
async fn a_container_of_26_leaves_its_dataset_when_it_has_snapshots() {
    if !Sim::has_containers().await {
        return;
    }
    let mut scene = Scene::new(Dialect::V26).await;
    let id = scene.create("one").await;
    assert!(id.is_i64());
    let found = scene.plain.call("container.get_instance", json!([id])).await;
    assert_eq!(found["status"]["state"], "STOPPED");
    assert_eq!(found["dataset"], scene.dataset("one"));
    assert!(found.get("aliases").is_none() && found.get("memory").is_none());
    let taken = json!([{ "dataset": scene.dataset("one"), "name": "s" }]);
    scene.plain.call("pool.snapshot.create", taken).await;
    let error = scene.plain.fail("container.delete", json!([id])).await;
    assert_eq!(error["data"]["extra"][0][2], 39);
    let error = scene.plain.fail("container.get_instance", json!([id])).await;
    assert_eq!(error["data"]["extra"][0][2], 2);
    let left = scene
        .plain
        .call("pool.dataset.get_instance", json!([scene.dataset("one")]))
        .await;
    assert_eq!(left["id"], scene.dataset("one"));
    let image = json!({ "name": "alpine:3.20:amd64:default", "version": "20251101_07:42" });
    let again = scene
        .plain
        .job("container.create", json!([{ "name": "one", "image": image }]))
        .await;
    assert_eq!(again["state"], "FAILED");
    scene
        .plain
        .call(
            "pool.dataset.delete",
            json!([scene.dataset("one"), { "recursive": true }]),
        )
        .await;
    scene.create("one").await;
}

#[tokio::test]
async fn snapshots_put_disks_back_and_clones_depend_on_them() {
    everywhere(async |scene: &mut Scene| {
        let id = scene.create("one").await;
        let dataset = scene.dataset("one");
        scene.start(&id).await;
        let put = |path: String, text: &str| json!([path, text, { "mode": 0o600, "uid": 0, "gid": 0 }]);
        // "one" and "two".
        scene
            .plain
            .call(
                "filesystem.file_receive",
                put(scene.path("one", "/root/deep/file"), "b25l"),
            )
            .await;
        let user = json!({ "sbx-apply:recipe": "abc" });
        let first = json!([{ "dataset": dataset, "name": "first", "properties": user }]);
        let made = scene.plain.call(&scene.snapshots("create"), first.clone()).await;
        assert_eq!(made["id"], format!("{dataset}@first"));
        assert!(
            made["properties"]["creation"]["rawvalue"]
                .as_str()
                .expect("a text")
                .parse::<u64>()
                .is_ok()
        );
        let told = made["properties"]["sbx-apply:recipe"]["value"].clone();
        assert_eq!(told, if scene.v26() { Value::Null } else { json!("abc") });
        if scene.v26() {
            let query = json!([{ "paths": [dataset], "get_user_properties": true }]);
            let told = scene.plain.call("zfs.resource.snapshot.query", query).await;
            assert_eq!(told[0]["user_properties"], user);
        }
        let again = scene.plain.fail(&scene.snapshots("create"), first).await;
        let number = if scene.v26() {
            &again["data"]["extra"][0][2]
        } else {
            &again["data"]["error"]
        };
        assert_eq!(*number, 17, "{again}");
        scene
            .plain
            .call(
                "filesystem.file_receive",
                put(scene.path("one", "/root/deep/file"), "dHdv"),
            )
            .await;
        let second = json!([{ "dataset": dataset, "name": "second" }]);
        scene.plain.call(&scene.snapshots("create"), second).await;
        let list = scene
            .plain
            .call(&scene.snapshots("query"), json!([[["dataset", "=", dataset]]]))
            .await;
        assert_eq!(list.as_array().map(Vec::len), Some(2));
        // Back to the first: not while it runs, and not past the second unless asked.
        let back = |options: Value| json!([format!("{dataset}@first"), options]);
        scene
            .plain
            .fail(&scene.snapshots("rollback"), back(json!({ "recursive": true })))
            .await;
        assert_eq!(scene.sim.violations().len(), 1);
        scene.stop(&id).await;
        let error = scene.plain.fail(&scene.snapshots("rollback"), back(json!({}))).await;
        assert_eq!(error["code"], -32001);
        let reason = error["data"]["reason"].as_str().expect("a text");
        assert!(reason.contains("more recent snapshots or bookmarks exist"), "{reason}");
        scene
            .plain
            .call(&scene.snapshots("rollback"), back(json!({ "recursive": true })))
            .await;
        let list = scene
            .plain
            .call(&scene.snapshots("query"), json!([[["dataset", "=", dataset]]]))
            .await;
        assert_eq!(list.as_array().map(Vec::len), Some(1));
        scene.start(&id).await;
        let said = scene
            .shell(&id, "cat /root/deep/file; stat -c %a-%u /root/deep/file")
            .await;
        assert!(said.contains("one") && said.contains("600-0"), "{said}");
        // A clone.
        let clone = scene.clone_of("one", "first", "two").await;
        let error = scene
            .plain
            .fail(&scene.snapshots("delete"), json!([format!("{dataset}@first")]))
            .await;
        assert_eq!(error["code"], -32602, "{error}");
        scene.start(&clone).await;
        let said = scene.shell(&clone, "cat /root/deep/file; hostname").await;
        assert!(said.contains("one") && said.contains("two"), "{said}");
        assert_eq!(scene.sim.violations().len(), 1, "{:?}", scene.sim.violations());
    })
    .await;
}

impl Scene {
    /// Clones as each dialect lets it.
    async fn clone_of(&mut self, source: &str, label: &str, name: &str) -> Value {
        let snapshot = format!("{}@{label}", self.dataset(source));
        let to = self.dataset(name);
        let clone = json!([{ "snapshot": snapshot, "dataset_dst": to }]);
        if self.v26() {
            self.plain.call(&self.snapshots("clone"), clone).await;
            let wanted = json!([{ "name": name, "dataset": to, "autostart": false }]);
            return self.plain.call("container.create_with_dataset", wanted).await["id"].clone();
        }
        let id = self.create(name).await;
        self.plain
            .call("zfs.dataset.delete", json!([to, { "recursive": true }]))
            .await;
        self.plain.call(&self.snapshots("clone"), clone).await;
        id
    }
}

#[tokio::test]
async fn files_do_not_leave_the_container() {
    everywhere(async |scene: &mut Scene| {
        let id = scene.create("one").await;
        let content = "eA==";
        let receive = |path: String| json!([path, content, { "mode": 0o644 }]);
        if !scene.v26() {
            scene
                .plain
                .call("filesystem.file_receive", receive(scene.path("one", "/file")))
                .await;
            assert_eq!(scene.sim.violations().len(), 1);
        }
        scene.start(&id).await;
        let before = scene.sim.violations().len();
        let root = scene.sim.root("one").expect("a daemon");
        std::os::unix::fs::symlink("/etc", root.join("out")).expect("links");
        std::os::unix::fs::symlink("tmp", root.join("within")).expect("links");
        std::os::unix::fs::symlink("../../../..", root.join("up")).expect("links");
        for (path, escapes) in [("/out/sbx-test", 1), ("/up/sbx-test", 1), ("/within/file", 0)] {
            let violations = scene.sim.violations().len();
            scene
                .plain
                .call("filesystem.file_receive", receive(scene.path("one", path)))
                .await;
            assert_eq!(scene.sim.violations().len(), violations + escapes, "{path}");
        }
        assert!(root.join("tmp/file").exists());
        assert!(!std::path::Path::new("/etc/sbx-test").exists());
        scene
            .plain
            .call("filesystem.file_receive", receive("/root/.profile".to_owned()))
            .await;
        assert_eq!(scene.sim.violations().len(), before + 3);
        let empty = scene
            .plain
            .fail("filesystem.file_receive", json!([scene.path("one", "/e"), ""]))
            .await;
        let text = "String should have at least 1 character";
        assert_eq!(empty["data"]["extra"], json!([["content", text, 22]]));
    })
    .await;
}

#[tokio::test]
async fn a_server_for_ssh_answers_in_a_second() {
    everywhere(async |scene: &mut Scene| {
        let id = scene.create("one").await;
        scene.start(&id).await;
        let begun = std::time::Instant::now();
        let banner = loop {
            assert!(begun.elapsed() < Duration::from_secs(20), "no server for SSH");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Some(address) = scene.sim.address("one").await else {
                continue;
            };
            let Ok(mut stream) = tokio::net::TcpStream::connect((address.as_str(), 22)).await else {
                continue;
            };
            let mut banner = [0; 12];
            stream.read_exact(&mut banner).await.expect("a banner");
            break banner;
        };
        assert_eq!(&banner, b"SSH-2.0-Open");
    })
    .await;
}

#[tokio::test]
async fn datasets_carry_properties_and_are_made_once() {
    for dialect in Dialect::ALL {
        let mut scene = Scene::new(dialect).await;
        let top = format!("{}/sbx-apply", scene.sim.pool());
        let make = |name: &str, value: &str| {
            let user = json!([{ "key": "sbx-apply:note", "value": value }]);
            json!([{ "name": name, "type": "FILESYSTEM", "user_properties": user }])
        };
        let orphan = scene
            .plain
            .fail("pool.dataset.create", make(&format!("{top}/demo"), "a"))
            .await;
        assert_eq!(orphan["code"], -32602);
        let made = scene.plain.call("pool.dataset.create", make(&top, "a")).await;
        assert_eq!(made["user_properties"]["sbx-apply:note"]["value"], "a");
        scene
            .plain
            .call("pool.dataset.create", json!([{ "name": format!("{top}/demo") }]))
            .await;
        // What one does not say itself it has from the one above.
        let below = scene
            .plain
            .call("pool.dataset.get_instance", json!([format!("{top}/demo")]))
            .await;
        let note = &below["user_properties"]["sbx-apply:note"];
        assert_eq!(note["value"], "a");
        assert_eq!(note["source"], if scene.v26() { "LOCAL" } else { "INHERITED" });
        // Whoever is early hears it from ZFS, whoever is late from the folder; a slow machine makes both late.
        let early = scene
            .plain
            .fail("pool.dataset.create", make(&format!("{top}/demo"), "b"))
            .await;
        let reason = early["data"]["reason"].as_str().expect("a text");
        assert!(reason.contains("already exists"), "{early}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let late = scene
            .plain
            .fail("pool.dataset.create", make(&format!("{top}/demo"), "b"))
            .await;
        assert_eq!(
            late["data"]["reason"],
            format!("[EINVAL] pool_dataset_create.name: Path /mnt/{top}/demo already exists\n")
        );
        let update = json!([top, { "user_properties_update": [
            { "key": "sbx-apply:other", "value": "x".repeat(1024) }, { "key": "sbx-apply:note", "remove": true },
        ]}]);
        let changed = scene.plain.call("pool.dataset.update", update).await;
        assert!(changed["user_properties"].get("sbx-apply:note").is_none());
        let long = json!([top, { "user_properties_update": [{ "key": "a:b", "value": "x".repeat(1025) }] }]);
        let error = scene.plain.fail("pool.dataset.update", long).await;
        assert_eq!(error["code"], -32602);
        let upper = json!([top, { "user_properties_update": [{ "key": "a:B", "value": "x" }] }]);
        scene.plain.fail("pool.dataset.update", upper).await;
        let error = scene.plain.fail("pool.dataset.delete", json!([top])).await;
        assert_eq!(error["data"]["error"], 39);
        scene
            .plain
            .call("pool.dataset.delete", json!([top, { "recursive": true }]))
            .await;
        let error = scene.plain.fail("pool.dataset.delete", json!([top])).await;
        assert_eq!(
            error["data"]["extra"],
            json!([[null, format!("PoolDataset {top} does not exist"), 2]])
        );
        let hidden = format!("{}/.ix-virt", scene.sim.pool());
        let found = scene
            .plain
            .call("pool.dataset.query", json!([[["id", "=", hidden]]]))
            .await;
        assert_eq!(found, json!([]));
        assert!(scene.sim.summary().contains("pool.dataset.create × "));
    }
}
