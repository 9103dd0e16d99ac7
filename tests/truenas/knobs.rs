//! What the simulation does wrong when it is told to.

use serde_json::{Value, json};

use super::plain::Plain;
use super::sim::{Cut, Dialect, Knobs, Sim};

/// A job that needs no container: it fails, for there is none of that name.
const JOB: &str = "virt.instance.start";

async fn sim(knobs: Knobs) -> Sim {
    Sim::start(Dialect::V25_10, knobs).await
}

/// The states that events told of a job, in order.
fn states(events: &[Value], id: &Value) -> Vec<String> {
    let of_job = events.iter().filter(|event| event["params"]["id"] == *id);
    let state = |event: &Value| {
        event["params"]["fields"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    of_job.map(state).collect()
}

/// Waits for the end of a job by its events.
async fn end(plain: &mut Plain, id: &Value) -> Vec<String> {
    while !states(&plain.events, id).contains(&"FAILED".to_owned()) {
        let event = plain.next_json().await;
        plain.events.push(event);
    }
    states(&plain.events, id)
}

#[tokio::test]
async fn datasets_stay_and_26_says_nothing() {
    for dialect in Dialect::ALL {
        let sim = Sim::start(dialect, Knobs::default()).await;
        let mut plain = Plain::connect(&sim).await;
        let made = json!([{ "name": "tank/some", "type": "FILESYSTEM" }]);
        plain.call("pool.dataset.create", made).await;
        sim.turn(|knobs| knobs.staying = vec!["/some"]);
        if dialect == Dialect::V26 {
            assert_eq!(plain.call("pool.dataset.delete", json!(["tank/some"])).await, true);
        } else {
            let refused = plain.fail("pool.dataset.delete", json!(["tank/some"])).await;
            assert_eq!(refused["data"]["error"], 14);
        }
        assert_eq!(sim.datasets_with("tank/some").await, ["tank/some"]);
        assert_eq!(plain.call("pool.dataset.delete", json!(["tank/some"])).await, true);
        assert_eq!(sim.datasets_with("tank/some").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn connections_are_lost_while_jobs_go_on() {
    for cut in [Cut::BeforeAnswer, Cut::AfterAnswer] {
        let knobs = Knobs {
            cut_jobs: 1,
            cut,
            ..Knobs::default()
        };
        let sim = sim(knobs).await;
        let mut plain = Plain::connect(&sim).await;
        plain.begin(JOB, json!(["none"])).await;
        if cut == Cut::AfterAnswer {
            assert_eq!(plain.next_json().await["result"], 1);
        }
        assert_eq!(plain.closed().await.0, 1006);
        let mut plain = Plain::connect(&sim).await;
        loop {
            let jobs = plain.call("core.get_jobs", json!([[["id", "=", 1]]])).await;
            if jobs[0]["state"] == "FAILED" {
                assert!(jobs[0]["exc_info"]["type"].is_string());
                break;
            }
        }
        // The next one is spared.
        assert_eq!(plain.call(JOB, json!(["none"])).await, 2);
    }
}

#[tokio::test]
async fn events_come_before_answers_twice_or_not_at_all() {
    let sim = sim(Knobs::default()).await;
    let mut plain = Plain::connect(&sim).await;
    plain.call("core.subscribe", json!(["core.get_jobs"])).await;
    let id = plain.call(JOB, json!(["none"])).await;
    assert_eq!(states(&plain.events, &id).first().map(String::as_str), Some("WAITING"));
    assert_eq!(end(&mut plain, &id).await, ["WAITING", "RUNNING", "FAILED"]);
    sim.turn(|knobs| knobs.double_events = true);
    let id = plain.call(JOB, json!(["none"])).await;
    end(&mut plain, &id).await;
    assert_eq!(
        states(&plain.events, &id)[..4],
        ["WAITING", "WAITING", "RUNNING", "RUNNING"]
    );
    sim.turn(|knobs| (knobs.double_events, knobs.late_answers) = (false, true));
    let id = plain.call(JOB, json!(["none"])).await;
    assert_eq!(states(&plain.events, &id), ["WAITING", "RUNNING", "FAILED"]);
    sim.turn(|knobs| knobs.no_events = true);
    plain.events.clear();
    plain.job(JOB, json!(["none"])).await;
    assert_eq!(plain.events, Vec::<Value>::new());
}

#[tokio::test]
async fn busy_is_said_before_anything_happens() {
    let knobs = Knobs {
        busy: 1,
        busy_jobs: 1,
        ..Knobs::default()
    };
    let sim = sim(knobs).await;
    let mut plain = Plain::connect(&sim).await;
    let error = plain.fail(JOB, json!(["none"])).await;
    assert_eq!((&error["code"], &error["data"]["error"]), (&json!(-32001), &json!(16)));
    let job = plain.job(JOB, json!(["none"])).await;
    assert_eq!(
        (&job["exc_info"]["type"], &job["exc_info"]["errno"]),
        (&json!("CallError"), &json!(16))
    );
    let job = plain.job(JOB, json!(["none"])).await;
    assert_ne!(job["exc_info"]["errno"], 16);
}

#[tokio::test]
async fn answers_of_jobs_can_be_withheld() {
    let sim = sim(Knobs::default()).await;
    let mut plain = Plain::connect(&sim).await;
    let options = plain.call("core.set_options", json!([{ "legacy_jobs": false }])).await;
    assert_eq!(options["legacy_jobs"], false);
    let error = plain.fail(JOB, json!([7])).await;
    assert_eq!(error["code"], -32602);
    assert_eq!(
        error["data"]["extra"],
        json!([["id", "Input should be a valid string", 22]])
    );
    let jobs = plain.call("core.get_jobs", json!([])).await;
    assert_eq!(jobs[0]["message_ids"], json!([2 + 1]));
    // 25.04 knows nothing of it.
    let old = Sim::start(Dialect::V25_04, Knobs::default()).await;
    let mut plain = Plain::connect(&old).await;
    assert_eq!(
        plain
            .call("core.set_options", json!([{ "legacy_jobs": false, "x": 1 }]))
            .await,
        Value::Null
    );
    assert_eq!(plain.call(JOB, json!(["none"])).await, 1);
}

#[tokio::test]
async fn a_restart_forgets_sessions_and_jobs() {
    let sim = sim(Knobs::default()).await;
    let mut plain = Plain::connect(&sim).await;
    plain.job(JOB, json!(["none"])).await;
    sim.restart();
    assert_eq!(plain.closed().await.0, 1006);
    let mut plain = Plain::connect(&sim).await;
    assert_eq!(plain.call("core.get_jobs", json!([])).await, json!([]));
    assert_eq!(plain.call(JOB, json!(["none"])).await, 1);
    assert_eq!(sim.connections(), 2);
}

#[tokio::test]
async fn who_comes_to_a_long_queue_gets_the_last_job_of_it() {
    let knobs = Knobs {
        slow_jobs: std::time::Duration::from_millis(300),
        ..Knobs::default()
    };
    let sim = sim(knobs).await;
    let mut plain = Plain::connect(&sim).await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(plain.call(JOB, json!(["none"])).await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(json!(ids), json!([1, 2, 3, 4, 5, 6, 6, 6]));
    // Another lock, another queue.
    assert_eq!(plain.call(JOB, json!(["other"])).await, 7);
    sim.turn(|knobs| knobs.lock_queue = 0);
    assert_eq!(plain.fail(JOB, json!(["other"])).await["data"]["error"], 16);
}
