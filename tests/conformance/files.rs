//! Removal, attributes, batches and streams.

use std::fs;
use std::io::Write as _;

use sbx_apply::backend::{ErrorKind, FileChange};
use sbx_apply::model::{Content, Data, Digest, Owner, Shape};

use super::fixture::{Fixture, fails, file, folder, link, mode, nothing, path};

fn attributes(at: &str, bits: u32, owner: Owner) -> FileChange {
    FileChange::Attributes {
        path: path(at),
        mode: mode(bits),
        owner,
    }
}

pub(crate) async fn removing_takes_whole_folders(f: &Fixture) {
    let name = f.with_files("one").await;
    let before = [
        file("/a/b/c/d", "x"),
        file("/a/e", "x"),
        link("/a/b/out", "/etc"),
        folder("/a/empty", 0o0, f.user()),
    ];
    f.change(&name, &before).await;
    f.change(&name, &[nothing("/a")]).await;
    assert_eq!(f.found(&name, "/a").await, None);
    assert!(f.found(&name, "/etc/passwd").await.is_some(), "links are not followed");
}

pub(crate) async fn removing_takes_links_themselves(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(
        &name,
        &[
            file("/real/kept", "kept"),
            link("/link", "/real"),
            link("/lost", "/nowhere"),
        ],
    )
    .await;
    f.change(&name, &[nothing("/link"), nothing("/lost")]).await;
    assert_eq!(f.look(&name, &["/link", "/lost"]).await.0.len(), 0);
    assert_eq!(f.text(&name, "/real/kept").await, "kept");
}

pub(crate) async fn removing_nothing_is_no_error(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[nothing("/none"), nothing("/none/below/that")]).await;
}

pub(crate) async fn attributes_change_nothing_else(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/file", "kept"), attributes("/file", 0o710, f.user())])
        .await;
    let found = f.found(&name, "/file").await.expect("is there");
    assert_eq!((found.mode, found.owner), (mode(0o710), f.user()));
    assert_eq!(f.text(&name, "/file").await, "kept");
}

pub(crate) async fn attributes_need_a_regular_file(f: &Fixture) {
    let name = f.with_files("one").await;
    let gone = f
        .backend
        .change_files(&name, &[attributes("/none", 0o600, f.user())])
        .await;
    fails(gone, ErrorKind::NotFound);
    f.change(&name, &[file("/target", "x"), link("/link", "/target")]).await;
    let linked = f
        .backend
        .change_files(&name, &[attributes("/link", 0o600, f.user())])
        .await;
    assert!(linked.is_err(), "a link is not followed");
    let target = f.found(&name, "/target").await.expect("is there");
    assert_eq!((target.mode, target.owner), (mode(0o644), Owner::ROOT));
}

pub(crate) async fn batches_are_done_in_order(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file("/x", "first"),
        nothing("/x"),
        folder("/x", 0o755, Owner::ROOT),
        file("/x/y", "inside"),
        link("/z", "/x"),
        file("/z/w", "through the link"),
        file("/y", "a"),
        file("/y", "b"),
    ];
    f.change(&name, &batch).await;
    assert_eq!(f.text(&name, "/x/y").await, "inside");
    assert_eq!(f.text(&name, "/x/w").await, "through the link");
    assert_eq!(f.text(&name, "/y").await, "b");
}

pub(crate) async fn batches_tell_what_stood_there(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file("/x", "new"),
        file("/x", "again"),
        attributes("/x", 0o600, f.user()),
        nothing("/x"),
        nothing("/x"),
        link("/x", "/nowhere"),
        folder("/x", 0o755, f.user()),
        folder("/x", 0o700, f.user()),
    ];
    let there = f.change(&name, &batch).await;
    assert_eq!(there, [false, true, true, true, false, false, true, true]);
    assert!(f.change(&name, &[]).await.is_empty());
}

pub(crate) async fn names_may_be_odd(f: &Fixture) {
    let name = f.with_files("one").await;
    let odd = [
        "/odd/with space",
        "/odd/-dash",
        "/odd/ü'\"$x`;",
        "/odd/*?[a]",
        "/odd/\\n",
        "/odd/...",
    ];
    f.change(&name, &odd.map(|at| file(at, at))).await;
    for at in odd {
        assert_eq!(f.text(&name, at).await, at);
    }
    let listed = f.backend.list_files(&name, &path("/odd"), false).await.expect("lists");
    assert_eq!(listed.len(), odd.len());
    f.change(&name, &odd.map(nothing)).await;
    assert_eq!(f.look(&name, &odd).await.0.len(), 0);
}

pub(crate) async fn a_running_instance_takes_files(f: &Fixture) {
    let name = f.running("one").await;
    let batch = [
        file("/etc/motd", "hello"),
        link("/link", "/etc/motd"),
        folder("/srv/made", 0o700, f.user()),
    ];
    f.change(&name, &batch).await;
    assert_eq!(f.text(&name, "/etc/motd").await, "hello");
    let made = f.found(&name, "/srv/made").await.expect("is there");
    assert_eq!(
        (made.shape, made.mode, made.owner),
        (Shape::Directory, mode(0o700), f.user())
    );
    f.change(&name, &[nothing("/etc/motd")]).await;
    assert_eq!(f.found(&name, "/etc/motd").await, None);
}

pub(crate) async fn a_content_on_this_machine_is_read(f: &Fixture) {
    let name = f.with_files("one").await;
    let bytes: Vec<u8> = (0..200_000_u32).map(|n| (n % 253) as u8).collect();
    let (_kept, change) = on_disk("/from-here", &bytes, &bytes);
    f.change(&name, &[change]).await;
    let (read, _) = f
        .backend
        .read(&name, &path("/from-here"), u64::MAX)
        .await
        .expect("reads");
    assert!(read == bytes);
}

pub(crate) async fn a_content_that_has_moved_is_refused(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/text", "kept")]).await;
    let (_kept, change) = on_disk("/text", b"planned", b"changed");
    let refused = f.backend.change_files(&name, &[change]).await;
    fails(refused, ErrorKind::Invalid);
    assert_eq!(f.text(&name, "/text").await, "kept");
}

pub(crate) async fn a_source_that_has_become_something_else_is_refused(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/text", "kept")]).await;
    let (kept, change) = on_disk("/text", b"planned", b"planned");
    let elsewhere = tempfile::NamedTempFile::new().expect("a file");
    fs::write(elsewhere.path(), b"planned").expect("writes");
    // A link, even to the same bytes; a folder; a file that has grown; nothing.
    let at = kept.path();
    for step in 0..4 {
        let _ = fs::remove_file(at);
        match step {
            0 => std::os::unix::fs::symlink(elsewhere.path(), at).expect("links"),
            1 => fs::write(at, b"planned and more").expect("writes"),
            2 => fs::create_dir(at).expect("makes"),
            _ => fs::remove_dir(at).expect("removes"),
        }
        let refused = f.backend.change_files(&name, std::slice::from_ref(&change)).await;
        fails(refused, ErrorKind::Invalid);
        assert_eq!(f.text(&name, "/text").await, "kept");
    }
}

/// A change with contents in a file of this machine, which lives as long as the guard.
fn on_disk(at: &str, planned: &[u8], held: &[u8]) -> (tempfile::NamedTempFile, FileChange) {
    let mut kept = tempfile::NamedTempFile::new().expect("a file");
    kept.write_all(held).expect("writes");
    let content = Content {
        digest: Digest::of(planned),
        size: planned.len() as u64,
        data: Data::Path(kept.path().to_owned()),
    };
    let change = FileChange::Write {
        path: path(at),
        content,
        mode: mode(0o644),
        owner: Some(Owner::ROOT),
    };
    (kept, change)
}

pub(crate) async fn a_stream_becomes_a_file(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/target", "spared"), link("/deep/stream", "/target")])
        .await;
    let bytes: Vec<u8> = (0..500_000_u32).map(|n| (n % 249) as u8).collect();
    for at in ["/deep/stream", "/made/by/stream"] {
        let written = f
            .backend
            .write_stream(&name, &path(at), &mut &bytes[..], mode(0o711), Some(f.user()))
            .await;
        written.expect("writes");
        let (read, _) = f.backend.read(&name, &path(at), u64::MAX).await.expect("reads");
        assert!(read == bytes, "{at}");
        let found = f.found(&name, at).await.expect("is there");
        assert_eq!((found.mode, found.owner), (mode(0o711), f.user()), "{at}");
    }
    assert_eq!(f.found(&name, "/made/by").await.expect("is there").owner, f.user());
    assert_eq!(f.text(&name, "/target").await, "spared");
}

pub(crate) async fn a_deleted_file_is_gone_and_not_found_again(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(
        &name,
        &[file("/file", "x"), file("/folder/file", "x"), link("/link", "/etc")],
    )
    .await;
    for at in ["/file", "/folder", "/link"] {
        f.backend.delete_file(&name, &path(at)).await.expect("deletes");
        fails(f.backend.delete_file(&name, &path(at)).await, ErrorKind::NotFound);
        assert_eq!(f.found(&name, at).await, None);
    }
    fails(
        f.backend.delete_file(&name, &path("/no/such/parent")).await,
        ErrorKind::NotFound,
    );
}
