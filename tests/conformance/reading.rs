//! Contents and listings.

use sbx_apply::backend::{ErrorKind, FileEntry};
use sbx_apply::model::{GuestPath, Owner};

use super::fixture::{Fixture, fails, file, file_as, folder, link, mode, path};

pub(crate) async fn reading_stops_at_its_bound(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/text", "0123456789")]).await;
    for (max, text, truncated) in [
        (0, "", true),
        (4, "0123", true),
        (9, "012345678", true),
        (10, "0123456789", false),
        (11, "0123456789", false),
    ] {
        let read = f.backend.read(&name, &path("/text"), max).await.expect("reads");
        assert_eq!(read, (text.as_bytes().to_vec(), truncated), "{max}");
    }
}

pub(crate) async fn reading_nothing_is_not_found(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[link("/lost", "/nowhere")]).await;
    for at in ["/none", "/none/below", "/lost"] {
        fails(f.backend.read(&name, &path(at), 10).await, ErrorKind::NotFound);
        fails(f.backend.list_files(&name, &path(at), true).await, ErrorKind::NotFound);
    }
    assert!(f.backend.read(&name, &path("/etc"), 10).await.is_err(), "a folder");
}

pub(crate) async fn a_link_is_read_inside_only(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file("/srv/kept/text", "inside"),
        link("/absolute", "/srv/kept/text"),
        link("/up", "../../../../../../../srv/kept/text"),
        link("/folder", "/srv/kept"),
    ];
    f.change(&name, &batch).await;
    assert_eq!(f.text(&name, "/absolute").await, "inside");
    assert_eq!(f.text(&name, "/up").await, "inside");
    assert_eq!(f.text(&name, "/folder/text").await, "inside");
}

pub(crate) async fn a_listing_is_ordered(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file_as("/list/b", "12345", 0o640, Owner::ROOT),
        file("/list/a/deep", "x"),
        file("/list/Z", ""),
        link("/list/link", "/etc"),
    ];
    f.change(&name, &batch).await;
    let listed = f.backend.list_files(&name, &path("/list"), false).await.expect("lists");
    let paths: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["/list/Z", "/list/a", "/list/b", "/list/link"]);
    let folders: Vec<_> = listed.iter().map(|entry| entry.is_dir).collect();
    assert_eq!(folders, [false, true, false, false], "a link to a folder is none");
    let file = FileEntry {
        path: path("/list/b"),
        size: 5,
        mode: mode(0o640),
        is_dir: false,
    };
    assert_eq!(listed[2], file);
}

pub(crate) async fn a_listing_may_be_of_everything_below(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file("/list/a/deep", "x"),
        file("/list/a-b", "x"),
        folder("/list/empty", 0o755, Owner::ROOT),
        link("/list/link", "/etc"),
    ];
    f.change(&name, &batch).await;
    let listed = f.backend.list_files(&name, &path("/list"), true).await.expect("lists");
    let paths: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(
        paths,
        ["/list/a", "/list/a-b", "/list/a/deep", "/list/empty", "/list/link"]
    );
    assert_eq!(
        f.backend
            .list_files(&name, &path("/list/empty"), true)
            .await
            .expect("lists"),
        []
    );
}

pub(crate) async fn a_listing_hides_no_name(f: &Fixture) {
    if !f.real_exec {
        f.unsupported("a listing hides no name: odd ones cannot be made here");
        return;
    }
    let name = f.running("one").await;
    let made = f
        .shell(
            &name,
            "mkdir -p /list && cd /list && touch \"$(printf 'a\\033[2Jb')\" \"$(printf 'line\\nbreak')\" && \
             mkdir \"$(printf 'no\\377text')\" && touch \"$(printf 'no\\377text/below')\"",
        )
        .await;
    assert_eq!(made.code, 0, "{}", String::from_utf8_lossy(&made.stderr));
    let listed = f.backend.list_files(&name, &path("/list"), true).await.expect("lists");
    let paths: Vec<_> = listed.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/list/a\u{1b}[2Jb",
            "/list/line\nbreak",
            "/list/no\u{fffd}text",
            "/list/no\u{fffd}text/below"
        ]
    );
}

pub(crate) async fn the_root_folder_can_be_listed(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/srv/text", "x")]).await;
    for recursive in [false, true] {
        let listed = f.backend.list_files(&name, &GuestPath::root(), recursive).await;
        let listed = listed.expect("lists");
        let has = |at: &str| listed.iter().any(|entry| entry.path.as_str() == at);
        assert!(has("/srv") && has("/etc"));
        assert_eq!(has("/srv/text"), recursive);
    }
}
