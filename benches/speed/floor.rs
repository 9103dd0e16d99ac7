//! The raw API.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::http::Connection;
use super::{Times, timed};

/// More at once are not faster, and fewer are slower.
const WORKERS: usize = 8;

/// What the daemon's file helper needs to be gone: a start straight after a push can wait a second for it.
const GAP: Duration = Duration::from_millis(30);

/// Makes and reads back `count` sandboxes, then removes them.
pub(crate) fn run(socket: &str, count: usize) -> Times {
    let apply = timed(|| each(socket, count, make));
    let no_op = timed(|| {
        let mut connection = Connection::open(socket);
        let all = connection.call("GET", "/1.0/instances?recursion=2", &Value::Null);
        assert!(all["metadata"].as_array().is_some_and(|all| all.len() >= count));
        drop(connection);
        each(socket, count, check);
    });
    each(socket, count, |connection, name| {
        connection.done(
            "PUT",
            &format!("/1.0/instances/{name}/state"),
            &json!({"action": "stop", "force": true}),
        );
        connection.done("DELETE", &format!("/1.0/instances/{name}"), &Value::Null);
    });
    Times { apply, no_op }
}

fn each(socket: &str, count: usize, work: impl Fn(&mut Connection, &str) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(count) {
            scope.spawn(|| {
                let mut connection = Connection::open(socket);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    work(&mut connection, &format!("floor-{index}"));
                }
            });
        }
    });
}

/// The files of each sandbox: path, mode, contents.
pub(crate) const FILES: [(&str, &str, &str); 3] = [
    ("/etc/motd", "0644", "one of many\n"),
    ("/etc/bench.conf", "0600", "a = 1\n"),
    ("/etc/bench.d", "0644", "b = 2\n"),
];

fn make(connection: &mut Connection, name: &str) {
    let source = json!({"type": "copy", "source": "bench-base/ready", "instance_only": true});
    connection.done(
        "POST",
        "/1.0/instances",
        &json!({"name": name, "source": source, "config": {}, "profiles": ["default"]}),
    );
    for (path, mode, content) in FILES {
        let headers = format!("X-Incus-uid: 0\r\nX-Incus-gid: 0\r\nX-Incus-mode: {mode}\r\nX-Incus-type: file\r\n");
        let path = format!("/1.0/instances/{name}/files?path={path}");
        // The helper for files is sometimes not there yet when many begin at once.
        for attempt in 0.. {
            let answer = connection.send("POST", &path, &headers, content.as_bytes());
            if !String::from_utf8_lossy(&answer).contains("\"error\":\"") || attempt == 5 {
                break;
            }
        }
    }
    std::thread::sleep(GAP);
    connection.done(
        "PUT",
        &format!("/1.0/instances/{name}/state"),
        &json!({"action": "start"}),
    );
    connection.done(
        "POST",
        &format!("/1.0/instances/{name}/snapshots"),
        &json!({"name": "made"}),
    );
}

fn check(connection: &mut Connection, name: &str) {
    for (path, _, content) in FILES {
        let bytes = connection.send("GET", &format!("/1.0/instances/{name}/files?path={path}"), "", b"");
        assert_eq!(bytes, content.as_bytes(), "{name} {path}");
    }
}
