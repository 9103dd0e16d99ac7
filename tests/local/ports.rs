//! A port of a sandbox of whoever runs this: root, or an ordinary user.

use std::io::Read as _;
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use sbx_apply::model::Attach;

use crate::support::namespaces::{self, Sandbox};

#[tokio::test]
async fn a_port_is_opened_and_closed_while_it_runs() {
    if namespaces::open().is_none() {
        return;
    }
    let sandbox = Sandbox::start().await;
    let serve = "(while true; do echo hello | busybox nc -l -p 8080; done) > /dev/null 2>&1 &";
    sandbox.shell(serve).await;
    let host = crate::workspace::free_port();
    let port = |host| Attach {
        ports: [("8080".parse().expect("a port"), host)].into(),
        ..Attach::default()
    };
    sandbox
        .backend
        .attach(&sandbox.name, &port(Some(host)))
        .await
        .expect("opens");
    let ask = || {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, host)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("sets");
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        Some(said)
    };
    // It begins to serve in its own time, and anew after each answer.
    let mut tries = 0..1000;
    while ask().as_deref() != Some("hello\n") {
        tries.next().expect("nobody answers");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    sandbox
        .backend
        .attach(&sandbox.name, &port(None))
        .await
        .expect("closes");
    assert_eq!(ask(), None);
    sandbox
        .backend
        .attach(&sandbox.name, &port(Some(host)))
        .await
        .expect("opens");
    assert!(ask().is_some());
    sandbox.end().await;
    assert_eq!(ask(), None, "it ends with the sandbox");
}
