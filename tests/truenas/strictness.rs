//! The simulation is as strict as the contract says, in the same words.

use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::plain::Plain;
use super::sim::{Dialect, Knobs, Login, Peer, Sim};

async fn sim(dialect: Dialect) -> Sim {
    Sim::start(dialect, Knobs::default()).await
}

/// The error that an answer to a raw text is.
async fn refused(plain: &mut Plain, text: &str) -> Value {
    plain.send(text).await;
    plain.next_json().await
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    for dialect in Dialect::ALL {
        let sim = sim(dialect).await;
        let mut plain = Plain::connect(&sim).await;
        let batch = refused(&mut plain, "[]").await;
        let message = "Batch messages are not supported at this time";
        assert_eq!(
            batch,
            json!({ "jsonrpc": "2.0", "error": { "code": -32700, "message": message }, "id": null })
        );
        assert_eq!(refused(&mut plain, "{").await["error"]["code"], -32700);
        for (text, message) in [
            (r#"{"id":1,"method":"core.ping"}"#, "Missing 'jsonrpc' member"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "Missing 'method' member"),
            (
                r#"{"jsonrpc":"1.0","id":1,"method":"core.ping"}"#,
                "'jsonrpc' member must be of type string and must be exactly '2.0'",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"core.ping","params":{}}"#,
                "'params' member must be of type array",
            ),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"core.ping","params":null}"#,
                "'params' member must be of type array",
            ),
        ] {
            let error = json!({ "code": -32600, "message": message });
            let answer = refused(&mut plain, text).await;
            assert_eq!(answer, json!({ "jsonrpc": "2.0", "error": error, "id": 1 }), "{text}");
        }
        let float = refused(&mut plain, r#"{"jsonrpc":"2.0","id":1.5,"method":"core.ping"}"#).await;
        assert_eq!(
            float["error"]["message"],
            "'id' member must be of type null, string or number"
        );
        // Left out parameters are none, a text is a good id, and what has no id gets no answer.
        plain.send(r#"{"jsonrpc":"2.0","method":"core.ping"}"#).await;
        plain.send(r#"{"jsonrpc":"2.0","method":"no.such"}"#).await;
        let pong = refused(&mut plain, r#"{"jsonrpc":"2.0","id":"a","method":"core.ping"}"#).await;
        assert_eq!(pong, json!({ "jsonrpc": "2.0", "result": "pong", "id": "a" }));
    }
}

#[tokio::test]
async fn unknown_methods_and_fields_are_refused() {
    for dialect in Dialect::ALL {
        let sim = sim(dialect).await;
        let mut plain = Plain::connect(&sim).await;
        let error = plain.fail("virt.instance.snapshot", json!([])).await;
        assert_eq!(error, json!({ "code": -32601, "message": "Method does not exist" }));
        let error = plain.fail("core.ping", json!([1])).await;
        assert_eq!(error["code"], -32602);
        assert_eq!(error["message"], "Invalid params");
        assert_eq!(error["data"]["error"], 22);
        assert_eq!(error["data"]["errname"], "EINVAL");
        let text = "Too many arguments (expected 0, found 1)";
        assert_eq!(error["data"]["reason"], format!("[EINVAL] : {text}\n"));
        assert_eq!(error["data"]["extra"], json!([["", text, 22]]));
        assert_eq!(error["data"]["trace"].get("frames").is_some(), dialect < Dialect::V26);
        let query = if dialect == Dialect::V26 {
            "pool.query"
        } else {
            "virt.instance.query"
        };
        let error = plain.fail(query, json!([[], { "select": [], "sorted": true }])).await;
        assert_eq!(
            error["data"]["extra"],
            json!([["options.sorted", "Extra inputs are not permitted", 22]])
        );
        // One bracket short, as everybody writes it first.
        let error = plain.fail(query, json!([["name", "^", "x"]])).await;
        assert_eq!(error["code"], -32602, "{error}");
    }
}

#[tokio::test]
async fn nothing_is_open_before_a_login() {
    for dialect in Dialect::ALL {
        let sim = sim(dialect).await;
        let mut plain = Plain::anonymous(&sim).await;
        for method in ["core.ping", "system.version", "core.get_jobs"] {
            let error = plain.fail(method, json!([])).await;
            assert_eq!((&error["code"], &error["data"]["error"]), (&json!(-32001), &json!(207)));
            assert_eq!(error["message"], "Method call error");
            assert_eq!(error["data"]["reason"], "[ENOTAUTHENTICATED] Not authenticated");
            assert_eq!(error["data"]["extra"], Value::Null);
        }
        assert_eq!(plain.log_in(&sim).await["result"]["response_type"], "SUCCESS");
        assert_eq!(plain.call("system.version", json!([])).await, dialect.version());
    }
}

#[tokio::test]
async fn logins_end_as_they_may() {
    for (login, response) in [
        (Login::Normal, "SUCCESS"),
        (Login::Expired, "EXPIRED"),
        (Login::Otp, "OTP_REQUIRED"),
        (Login::Redirect, "REDIRECT"),
    ] {
        let knobs = Knobs {
            login,
            ..Knobs::default()
        };
        let sim = Sim::start(Dialect::V25_10, knobs).await;
        let mut plain = Plain::anonymous(&sim).await;
        assert_eq!(plain.log_in(&sim).await["result"]["response_type"], response);
        let error = plain.ask("core.ping", json!([])).await.get("error").is_some();
        assert_eq!(error, login != Login::Normal);
    }
    let sim = sim(Dialect::V25_04).await;
    sim.turn(|knobs| knobs.login = Login::Unsupported);
    let mut plain = Plain::anonymous(&sim).await;
    assert_eq!(plain.log_in(&sim).await["error"]["data"]["error"], 95);
    sim.turn(|knobs| knobs.login = Login::RateLimited);
    let error = plain.log_in(&sim).await;
    assert_eq!(error["error"]["data"]["reason"], "[EBUSY] Rate Limit Exceeded");
    sim.turn(|knobs| knobs.login = Login::Normal);
    let wrong = json!({ "mechanism": "API_KEY_PLAIN", "username": "sbx", "api_key": "1-wrong" });
    let answer = plain.call("auth.login_ex", json!([wrong])).await;
    assert_eq!(answer, json!({ "response_type": "AUTH_ERR" }));
    assert_eq!(plain.call("auth.login_with_api_key", json!([sim.key()])).await, true);
    assert!(
        !format!("{:?}", sim.requests()).contains(sim.key()),
        "the key was written down"
    );
}

#[tokio::test]
async fn logins_of_the_wrong_form_are_named_by_branch() {
    let bad = json!([{ "mechanism": "API_KEY_PLAIN", "api_key": "1-x", "more": 1 }]);
    let old = sim(Dialect::V25_04).await;
    let error = Plain::anonymous(&old).await.fail("auth.login_ex", bad.clone()).await;
    let extra = error["data"]["extra"].as_array().expect("faults");
    assert!(
        extra.contains(&json!(["login_data.AuthApiKeyPlain.username", "Field required", 22])),
        "{extra:?}"
    );
    let new = sim(Dialect::V25_10).await;
    let error = Plain::anonymous(&new).await.fail("auth.login_ex", bad).await;
    assert_eq!(
        error["data"]["extra"],
        json!([
            ["login_data.API_KEY_PLAIN.username", "Field required", 22],
            ["login_data.API_KEY_PLAIN.more", "Extra inputs are not permitted", 22],
        ])
    );
}

#[tokio::test]
async fn a_key_in_the_clear_from_elsewhere_is_revoked() {
    let knobs = Knobs {
        peer: Peer::Remote,
        ..Knobs::default()
    };
    let sim = Sim::start(Dialect::V25_04, knobs).await;
    let mut plain = Plain::anonymous(&sim).await;
    assert_eq!(plain.log_in(&sim).await["result"]["response_type"], "EXPIRED");
    assert_eq!(sim.violations().len(), 1);
    // For good, whoever sends it.
    sim.turn(|knobs| knobs.peer = Peer::Loopback);
    let mut plain = Plain::anonymous(&sim).await;
    assert_eq!(plain.log_in(&sim).await["result"]["response_type"], "EXPIRED");
}

#[tokio::test]
async fn long_messages_end_the_connection() {
    let sim = sim(Dialect::V25_04).await;
    let long = |length: usize| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"core.ping","x":"{}"}}"#,
            "x".repeat(length)
        )
    };
    let mut plain = Plain::anonymous(&sim).await;
    plain.send(long(9000)).await;
    let reason = "Anonymous connection max message length is 8 kB".to_owned();
    assert_eq!(plain.closed().await, (1007, reason));
    let mut plain = Plain::connect(&sim).await;
    // Characters count, not bytes.
    plain
        .send(long(0).replace("\"x\":\"\"", &format!("\"x\":\"{}\"", "ä".repeat(60_000))))
        .await;
    assert_eq!(plain.next_json().await["result"], "pong");
    plain.send(long(70_000)).await;
    assert_eq!(plain.closed().await, (1009, "Max message length is 64 kB".to_owned()));
    let mut plain = Plain::connect(&sim).await;
    plain.send_message(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(plain.closed().await.0, 1003);
}

#[tokio::test]
async fn the_twenty_first_call_is_too_many() {
    let sim = sim(Dialect::V25_04).await;
    let mut plain = Plain::connect(&sim).await;
    sim.turn(|knobs| knobs.delay = Duration::from_millis(300));
    let mut ids = Vec::new();
    for _ in 0..21 {
        ids.push(plain.begin("core.ping", json!([])).await);
    }
    let first = plain.next_json().await;
    assert_eq!(first["id"], ids[20]);
    let message = "Maximum number of concurrent calls (20) has exceeded";
    assert_eq!(first["error"], json!({ "code": -32000, "message": message }));
    for _ in 0..20 {
        assert_eq!(plain.next_json().await["result"], "pong");
    }
}

#[tokio::test]
async fn idle_connections_are_cut_and_pings_keep_them() {
    let knobs = Knobs {
        idle_cut: Some(Duration::from_millis(500)),
        ..Knobs::default()
    };
    let sim = Sim::start(Dialect::V25_04, knobs).await;
    let mut plain = Plain::connect(&sim).await;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(250)).await;
        plain.send_message(Message::Ping(Vec::new().into())).await;
        assert!(matches!(plain.next().await, Some(Message::Pong(_))));
    }
    assert_eq!(plain.closed().await.0, 1006);
    assert_eq!(sim.connections(), 1);
}

#[tokio::test]
async fn types_are_not_coerced_and_jobs_tell_it_late() {
    let sim = sim(Dialect::V25_04).await;
    let mut plain = Plain::connect(&sim).await;
    let bad = json!([{
        "name": "a", "image": "alpine/3.20", "cpu": 2, "memory": "1GiB", "privileged_mode": false,
        "environment": { "a b": "x", "OK": " " },
        "devices": [{ "dev_type": "NIC", "nic_type": "ROUTED" }, { "parent": "br0" }],
    }]);
    let job = plain.job("virt.instance.create", bad).await;
    assert_eq!(job["state"], "FAILED");
    assert_eq!(job["exc_info"]["type"], "VALIDATION");
    assert_eq!(job["exc_info"]["errno"], Value::Null);
    let extra = job["exc_info"]["extra"].as_array().expect("faults");
    let has = |at: &str, text: &str| {
        let found = extra.contains(&json!([format!("virt_instance_create.{at}"), text, 22]));
        assert!(found, "{at}: {text} is not in {extra:#?}");
    };
    has("cpu", "Input should be a valid string");
    has("memory", "Input should be a valid integer");
    has("privileged_mode", "Extra inputs are not permitted");
    has("devices.0.NIC.nic_type", "Input should be 'BRIDGED' or 'MACVLAN'");
    has("devices.1.dev_type", "Field required");
    assert_eq!(extra.len(), 7, "{extra:#?}");
    let error = job["error"].as_str().expect("a text");
    assert!(
        error.contains("[EINVAL] virt_instance_create.cpu: Input should be a valid string\n"),
        "{error}"
    );
    // What is no object has no name to lock.
    let error = plain.fail("virt.instance.create", json!(["a"])).await;
    assert_eq!(error["code"], -32001);
    let job = plain.job("virt.instance.stop", json!(["a", {}])).await;
    let text = "[EINVAL] : Value error, Timeout should be set if force is disabled\n";
    assert_eq!(job["error"], text);
}

#[tokio::test]
async fn both_ports_answer_at_the_api_and_nowhere_else() {
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let sim = sim(Dialect::V25_10).await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(sim.certificate().as_bytes()).expect("a certificate");
    roots.add(certificate).expect("is taken");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect((sim.host(), sim.tls_port()))
        .await
        .expect("connects");
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    let stream = TlsConnector::from(std::sync::Arc::new(config))
        .connect(name, stream)
        .await
        .expect("is trusted");
    let url = format!("wss://127.0.0.1:{}/api/current", sim.tls_port());
    assert!(tokio_tungstenite::client_async(url, stream).await.is_ok());
    let stream = tokio::net::TcpStream::connect((sim.host(), sim.port()))
        .await
        .expect("connects");
    let url = format!("ws://127.0.0.1:{}/websocket", sim.port());
    assert!(tokio_tungstenite::client_async(url, stream).await.is_err());
}
