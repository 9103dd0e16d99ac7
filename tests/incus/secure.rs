//! HTTPS, certificates and remotes.

use std::env;
use std::fs;
use std::path::PathBuf;

use reqwest::Method;
use sbx_apply::backend::incus::Incus;
use sbx_apply::backend::{Backend, ErrorKind, Exec as _, Files as _, Observe as _, ReadFiles as _, Settings};
use serde_json::json;

use super::api;
use crate::conformance::fixture::{Fixture, file, incus, path, run, shell};
use crate::support::daemon::{self, Daemon};

/// The daemon's address and the folder with the client's files.
fn secure(daemon: &Daemon) -> Option<(String, PathBuf)> {
    let address = env::var("SBX_TEST_HTTPS").ok();
    if address.is_none() {
        daemon::skipped("checks over HTTPS: SBX_TEST_HTTPS is not set");
    }
    Some((address?, daemon.socket.parent()?.join("client")))
}

fn settings(address: &str, pairs: &[(&str, PathBuf)]) -> Settings {
    let paths = pairs
        .iter()
        .map(|(key, path)| ((*key).to_owned(), path.display().to_string()));
    paths.chain([("url".to_owned(), address.to_owned())]).collect()
}

/// A client's configuration with one remote.
fn configuration(client: &std::path::Path, remote: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["client.crt", "client.key"] {
        fs::copy(client.join(name), folder.path().join(name)).expect("copies");
    }
    fs::create_dir(folder.path().join("servercerts")).expect("makes");
    // `images` leads here too: tests ask nobody outside.
    for name in ["far", "images"] {
        let pin = folder.path().join(format!("servercerts/{name}.crt"));
        fs::copy(client.join("server.crt"), pin).expect("copies");
    }
    let text = format!("default-remote: local\nremotes:\n  far: {remote}\n  images: {remote}\n");
    fs::write(folder.path().join("config.yml"), text).expect("writes");
    folder
}

/// Does one of each: plain requests, an upgrade to SFTP, websockets.
async fn use_it(f: &Fixture, backend: &Incus, name: &str) {
    backend.create(&f.opts(name)).await.expect("creates");
    let name = f.name(name);
    backend
        .change_files(&name, &[file("/text", "over TLS")])
        .await
        .expect("writes");
    let (text, _) = backend.read(&name, &path("/text"), 100).await.expect("reads");
    assert_eq!(text, b"over TLS");
    backend.start(&name).await.expect("starts");
    let output = backend.output(&name, &shell("cat /text; exit 3")).await.expect("runs");
    assert_eq!((output.code, output.stdout.as_slice()), (3, &b"over TLS"[..]));
}

#[tokio::test]
async fn only_the_pinned_certificate_is_trusted() {
    let Some(daemon) = daemon::find() else { return };
    let Some((address, client)) = secure(&daemon) else {
        return;
    };
    run(incus().await, async |f: &Fixture| {
        let identity = [
            ("client-certificate", client.join("client.crt")),
            ("client-key", client.join("client.key")),
        ];
        let pinned = |pin: &str| [&identity[..], &[("server-certificate", client.join(pin))]].concat();
        let backend = Incus::open(&settings(&address, &pinned("server.crt")))
            .await
            .expect("opens");
        assert!(backend.describe().await.expect("answers").contains(&address));
        use_it(f, &backend, "one").await;

        // Any other certificate, and the machine's own authorities where none is pinned.
        for wrong in [pinned("client.crt"), identity.to_vec()] {
            let backend = Incus::open(&settings(&address, &wrong)).await.expect("opens");
            let error = backend.list().await.expect_err("not trusted");
            assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_is_not_known_there_is_unauthorised() {
    let Some(daemon) = daemon::find() else { return };
    let Some((address, client)) = secure(&daemon) else {
        return;
    };
    let anonymous = settings(&address, &[("server-certificate", client.join("server.crt"))]);
    let backend = Incus::open(&anonymous).await.expect("opens");
    let error = backend.list().await.expect_err("not trusted");
    assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error:?}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn a_remote_of_the_clients_configuration_is_used() {
    let Some(daemon) = daemon::find() else { return };
    let Some((address, client)) = secure(&daemon) else {
        return;
    };
    run(incus().await, async |f: &Fixture| {
        let remote = format!("{{ addr: '{address}', auth_type: tls, project: default, protocol: incus }}");
        let folder = configuration(&client, &remote);
        let settings = |remote: &str| {
            Settings::from([
                ("config-dir".to_owned(), folder.path().display().to_string()),
                ("remote".to_owned(), remote.to_owned()),
            ])
        };
        use_it(f, &Incus::open(&settings("far")).await.expect("opens"), "one").await;
        let error = Incus::open(&settings("farther")).await.expect_err("unknown");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.hint().is_some_and(|hint| hint.contains("far")), "{error:?}");
    })
    .await;
}

#[tokio::test]
async fn an_image_of_a_remote_is_pulled() {
    let Some(daemon) = daemon::find() else { return };
    let Some((address, client)) = secure(&daemon) else {
        return;
    };
    run(incus().await, async |f: &Fixture| {
        let alias = api::call(&daemon, Method::GET, "/1.0/images/aliases/busybox", None).await;
        let fingerprint = alias["target"].as_str().expect("a fingerprint").to_owned();
        let image = format!("/1.0/images/{fingerprint}");
        api::call(&daemon, Method::PATCH, &image, Some(json!({ "public": true }))).await;

        let folder = configuration(
            &client,
            &format!("{{ addr: '{address}', protocol: incus, public: true }}"),
        );
        let settings = Settings::from([
            ("config-dir".to_owned(), folder.path().display().to_string()),
            ("socket".to_owned(), daemon.socket.display().to_string()),
        ]);
        let backend = Incus::open(&settings).await.expect("opens");
        let fingerprints = [fingerprint.as_str(), &fingerprint[..12]];
        for (name, image) in ["far:busybox", "local:busybox"]
            .into_iter()
            .chain(fingerprints)
            .enumerate()
        {
            let mut opts = f.opts(&format!("i{name}"));
            opts.image = Some(image.to_owned());
            Backend::create(&backend, &opts).await.expect(image);
        }
        for (image, says) in [
            ("far:nothing", "far"),
            ("other:busybox", "other"),
            ("nothing", "no alias or fingerprint here"),
        ] {
            let mut opts = f.opts("none");
            opts.image = Some(image.to_owned());
            let error = Backend::create(&backend, &opts).await.expect_err(image);
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    })
    .await;
}
