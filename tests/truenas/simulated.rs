//! What the simulation does with real containers.

use serde_json::{Value, json};

use super::plain::Plain;
use super::sim::{Dialect, Knobs, Sim};
use crate::support::daemon;

#[tokio::test]
async fn a_container_lives_and_dies() {
    if daemon::find().is_none() {
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
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        };
        assert_eq!(running["status"], "RUNNING");
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
        let first: &Value = &plain.events[0];
        assert_eq!(first["params"]["msg"], "added");
        drop(sim);
    }
}
