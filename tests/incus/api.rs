//! The daemon's API without our backend in between, to do what people do behind our back.

use reqwest::Method;
use serde_json::Value;

use crate::support::daemon::Daemon;

/// Sends one request and waits for what it starts. Gives the answer's metadata.
///
/// # Panics
/// When the daemon refuses.
pub(crate) async fn call(daemon: &Daemon, method: Method, path: &str, body: Option<Value>) -> Value {
    // The client wants a provider, though nothing is encrypted here. Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .unix_socket(daemon.socket.as_path())
        .pool_max_idle_per_host(0)
        // Reading all authorities of the machine takes longer than most requests.
        .tls_certs_only([])
        .build()
        .expect("a client");
    let mut request = client.request(method, format!("http://incus{path}"));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let mut answer: Value = request.send().await.expect("answers").json().await.expect("JSON");
    if let Some(operation) = answer["operation"].as_str().filter(|operation| !operation.is_empty()) {
        let wait = client.get(format!("http://incus{operation}/wait"));
        answer = wait.send().await.expect("answers").json().await.expect("JSON");
    }
    assert_eq!(answer["error_code"], 0, "{path}: {answer}");
    answer["metadata"].take()
}
