//! Where notes are kept, and what they cost.

use reqwest::Method;
use sbx_apply::backend::incus::Incus;
use sbx_apply::backend::{ErrorKind, KeepNotes as _, Observe as _, Settings};
use sbx_apply::model::{Note, NoteKey};
use serde_json::{Value, json};

use super::api;
use crate::conformance::fixture::{Fixture, fails, incus, run};
use crate::support::daemon::{self, Daemon};
use crate::support::proxy::{Asked, Proxy};

const LOCK: NoteKey = NoteKey::Lock;

fn note(text: &str) -> Note {
    Note::new(text).expect("a note")
}

async fn profiles(daemon: &Daemon, f: &Fixture) -> Vec<String> {
    let all = api::call(daemon, Method::GET, "/1.0/profiles", None).await;
    let names = all.as_array().expect("a list").iter().filter_map(Value::as_str);
    let mark = format!("_{}_", f.environment());
    let names = names.filter(|name| name.contains(&mark));
    names
        .map(|name| name.rsplit('/').next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test]
async fn a_profile_of_somebody_else_is_left_alone() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let environment = f.environment();
        let name = format!("sbx-apply_default_{environment}_lock");
        let path = format!("/1.0/profiles/{name}");
        // Without labels, and with those of another environment.
        for config in [
            json!({}),
            json!({ "user.sbx-apply.environment": "other", "user.sbx-apply.project": "default",
                    "user.sbx-apply.note": "1" }),
        ] {
            let body = json!({ "name": name, "config": config });
            api::call(&daemon, Method::POST, "/1.0/profiles", Some(body)).await;
            let before = api::call(&daemon, Method::GET, &path, None).await;
            let error = fails(f.backend.note(&environment, LOCK).await, ErrorKind::Failed);
            assert!(error.to_string().contains("stands in the way"), "{error}");
            let (one, two) = (note("1"), note("2"));
            fails(
                f.backend.create_note(&environment, LOCK, &two).await,
                ErrorKind::AlreadyExists,
            );
            fails(
                f.backend.replace_note(&environment, LOCK, &one, &two).await,
                ErrorKind::Failed,
            );
            fails(
                f.backend.take_over_note(&environment, LOCK, &one, &two).await,
                ErrorKind::Failed,
            );
            fails(f.backend.delete_note(&environment, LOCK, &one).await, ErrorKind::Failed);
            f.backend.delete_notes(&environment).await.expect("has none to delete");
            assert_eq!(api::call(&daemon, Method::GET, &path, None).await, before);
            api::call(&daemon, Method::DELETE, &path, None).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_a_release_that_was_killed_has_left_goes_with_the_next_one() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let environment = f.environment();
        let name = format!("sbx-apply_default_{environment}_lock");
        for text in ["1", "2"] {
            let made = f.backend.create_note(&environment, LOCK, &note(text)).await;
            made.expect("makes");
            if text == "1" {
                let body = json!({ "name": format!("{name}_0123456789abcdef") });
                api::call(&daemon, Method::POST, &format!("/1.0/profiles/{name}"), Some(body)).await;
            }
        }
        assert_eq!(profiles(&daemon, f).await.len(), 2);
        let deleted = f.backend.delete_note(&environment, LOCK, &note("2")).await;
        deleted.expect("deletes");
        assert_eq!(profiles(&daemon, f).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn what_a_takeover_that_was_killed_has_left_goes_with_the_next_one() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let environment = f.environment();
        let name = format!("sbx-apply_default_{environment}_lock");
        f.backend
            .create_note(&environment, LOCK, &note("1"))
            .await
            .expect("makes");
        // It was killed when the old one had been put aside: nobody holds anything.
        let body = json!({ "name": format!("{name}_0123456789abcdef") });
        api::call(&daemon, Method::POST, &format!("/1.0/profiles/{name}"), Some(body)).await;
        assert_eq!(f.backend.note(&environment, LOCK).await.expect("reads"), None);
        f.backend
            .create_note(&environment, LOCK, &note("2"))
            .await
            .expect("makes");
        assert_eq!(profiles(&daemon, f).await.len(), 2);
        let taken = f
            .backend
            .take_over_note(&environment, LOCK, &note("2"), &note("3"))
            .await;
        taken.expect("takes over");
        assert_eq!(profiles(&daemon, f).await, [name]);
        f.backend.delete_notes(&environment).await.expect("deletes");
        assert_eq!(profiles(&daemon, f).await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn a_note_is_not_deleted_where_another_has_taken_its_place() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let environment = f.environment();
        let proxy = Proxy::start(&daemon.socket);
        let settings = Settings::from([("socket".to_owned(), proxy.socket().display().to_string())]);
        let slow = Incus::open(&settings).await.expect("opens");
        f.backend
            .create_note(&environment, LOCK, &note("1"))
            .await
            .expect("makes");
        // The first change that it asks for, having looked that the note is still the one that it means.
        let gate = proxy.gate(|asked| matches!(asked, Asked::Request { method, .. } if method != "GET"));
        let first = note("1");
        let deleted = slow.delete_note(&environment, LOCK, &first);
        let taken = async {
            gate.reached().await;
            let taken = f
                .backend
                .take_over_note(&environment, LOCK, &note("1"), &note("2"))
                .await;
            taken.expect("takes over");
            gate.open();
        };
        let (deleted, ()) = tokio::join!(deleted, taken);
        fails(deleted, ErrorKind::Conflict);
        let found = f.backend.note(&environment, LOCK).await.expect("reads");
        assert_eq!(found, Some(note("2")), "whoever took it over still has it");
        assert_eq!(profiles(&daemon, f).await.len(), 1, "and nothing lies aside");
        f.backend.delete_notes(&environment).await.expect("deletes");
    })
    .await;
}

#[tokio::test]
async fn an_apply_pays_five_requests_for_its_lock() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let settings = Settings::from([("socket".to_owned(), daemon.socket.display().to_string())]);
        let backend = Incus::open(&settings).await.expect("opens");
        backend.describe().await.expect("answers");
        let environment = f.environment();
        let before = backend.requests();
        backend
            .create_note(&environment, LOCK, &note("1"))
            .await
            .expect("makes");
        assert_eq!(backend.requests() - before, 1, "taking it");
        let replaced = backend.replace_note(&environment, LOCK, &note("1"), &note("2")).await;
        replaced.expect("replaces");
        assert_eq!(backend.requests() - before, 3, "renewing it");
        backend
            .delete_note(&environment, LOCK, &note("2"))
            .await
            .expect("deletes");
        assert_eq!(backend.requests() - before, 7, "letting go of it");
    })
    .await;
}
