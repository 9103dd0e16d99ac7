//! Reaching a daemon, or not. These need none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sbx_apply::backend::incus::Incus;
use sbx_apply::backend::{ErrorKind, Observe as _, Registry, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::time::timeout;

fn settings(pairs: &[(&str, &str)]) -> Settings {
    pairs
        .iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[tokio::test]
async fn where_nobody_listens_is_said_soon_and_with_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder.path().to_str().expect("text");
    let error = Incus::open(&settings(&[("incus-dir", nowhere)]))
        .await
        .expect_err("no socket");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    let hint = error.hint().expect("a hint");
    assert!(hint.contains(nowhere) && hint.contains("unix.socket.user"), "{hint}");

    let deserted = folder.path().join("unix.socket");
    drop(UnixListener::bind(&deserted).expect("a socket"));
    let backend = Incus::open(&settings(&[("incus-dir", nowhere)]))
        .await
        .expect("there is a socket");
    let started = Instant::now();
    let error = backend.list().await.expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains(deserted.to_str().expect("text")), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn two_places_are_refused() {
    let twice = settings(&[("socket", "/a"), ("url", "https://192.0.2.1:8443")]);
    let error = Registry::standard().open("incus", &twice).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let plain = settings(&[("url", "http://192.0.2.1:8443")]);
    assert_eq!(
        Incus::open(&plain).await.expect_err("refused").kind(),
        ErrorKind::Invalid
    );
    let unknown = settings(&[("remote", "nobody")]);
    assert_eq!(
        Incus::open(&unknown).await.expect_err("refused").kind(),
        ErrorKind::NotFound
    );
}

/// The daemon waits for the first bytes of a connection before it accepts the next: one that sends nothing
/// freezes its socket for everybody.
#[tokio::test]
async fn no_connection_is_left_without_a_request() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("unix.socket");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let server = tokio::spawn(async move {
        let mut served = 0;
        loop {
            let (mut stream, _) = listener.accept().await.expect("accepts");
            let mut first = vec![0; 4096];
            let read = timeout(Duration::from_secs(2), stream.read(&mut first)).await;
            let count = read
                .expect("a connection was opened and nothing was sent")
                .expect("reads");
            served += 1;
            let request = String::from_utf8_lossy(&first[..count]).into_owned();
            if request.starts_with("GET /1.0/end ") {
                return served;
            }
            tokio::spawn(async move {
                // Long enough for connections to overlap, so that a pool would have reason to open more.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let metadata = if request.starts_with("GET /1.0 ") {
                    r#"{"api_extensions":["instances","instance_get_full","container_exec_user_group_cwd",
                    "instance_create_start","snapshot_disk_usage","snapshot_expiry_creation"],"auth":"trusted"}"#
                } else {
                    "[]"
                };
                let body = format!(r#"{{"type":"sync","status_code":200,"metadata":{metadata}}}"#);
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
                let _ = stream.read(&mut [0]).await;
            });
        }
    });
    let place = socket.to_str().expect("text");
    let backend = Arc::new(Incus::open(&settings(&[("socket", place)])).await.expect("opens"));
    for _ in 0..5 {
        for listed in join_all((0..8).map(|_| backend.list())).await {
            assert_eq!(listed.expect("lists"), []);
        }
    }
    assert_eq!(backend.requests(), 41);
    let mut last = tokio::net::UnixStream::connect(&socket).await.expect("connects");
    last.write_all(b"GET /1.0/end HTTP/1.1\r\n\r\n").await.expect("sends");
    assert_eq!(server.await.expect("every connection sent something"), 42);
}
