//! Folders and links.

use sbx_apply::model::{Owner, Shape};

use super::fixture::{Fixture, file, folder, link, mode};

pub(crate) async fn a_folder_that_is_there_keeps_what_it_holds(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[folder("/a/b", 0o755, Owner::ROOT), file("/a/b/kept", "kept")])
        .await;
    f.change(&name, &[folder("/a/b", 0o700, f.user())]).await;
    let found = f.found(&name, "/a/b").await.expect("is there");
    assert_eq!(
        (found.shape, found.mode, found.owner),
        (Shape::Directory, mode(0o700), f.user())
    );
    let kept = f.found(&name, "/a/b/kept").await.expect("is there");
    assert_eq!((kept.mode, kept.owner), (mode(0o644), Owner::ROOT));
}

pub(crate) async fn a_folder_replaces_files_and_links(f: &Fixture) {
    let name = f.with_files("one").await;
    let before = [file("/file", "x"), link("/link", "/etc"), link("/dangling", "/nowhere")];
    f.change(&name, &before).await;
    let places = ["/file", "/link", "/dangling"];
    f.change(&name, &places.map(|at| folder(at, 0o750, f.user()))).await;
    for at in places {
        let found = f.found(&name, at).await.expect("is there");
        assert_eq!(
            (found.shape, found.mode, found.owner),
            (Shape::Directory, mode(0o750), f.user()),
            "{at}"
        );
    }
    assert_eq!(f.found(&name, "/link/passwd").await, None);
    assert_eq!(f.found(&name, "/nowhere").await, None);
    assert!(f.found(&name, "/etc/passwd").await.is_some());
}

pub(crate) async fn a_folder_below_a_file_cannot_be_made(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/file", "kept")]).await;
    let made = f
        .backend
        .change_files(&name, &[folder("/file/below", 0o755, f.user())])
        .await;
    assert!(made.is_err(), "a parent is no folder");
    assert_eq!(f.text(&name, "/file").await, "kept");
}

pub(crate) async fn a_link_is_made_as_it_is(f: &Fixture) {
    let name = f.with_files("one").await;
    let targets = [
        ("/links/absolute", "/etc/passwd"),
        ("/links/relative", "../etc/passwd"),
        ("/links/dangling", "no/where"),
        ("/links/odd", "a b//./../ü"),
        ("/links/up", "../../../../../../etc"),
    ];
    f.change(&name, &targets.map(|(at, target)| link(at, target))).await;
    for (at, target) in targets {
        let found = f.found(&name, at).await.expect("is there");
        assert_eq!(found.shape, Shape::Symlink(target.to_owned()), "{at}");
    }
    assert_eq!(f.found(&name, "/links").await.expect("is there").mode, mode(0o755));
}

pub(crate) async fn a_link_replaces_files_and_folders(f: &Fixture) {
    let name = f.with_files("one").await;
    let before = [file("/file", "x"), file("/folder/below", "x"), link("/link", "/etc")];
    f.change(&name, &before).await;
    for at in ["/file", "/folder", "/link"] {
        f.change(&name, &[link(at, "/elsewhere")]).await;
        let found = f.found(&name, at).await.expect("is there");
        assert_eq!(found.shape, Shape::Symlink("/elsewhere".to_owned()), "{at}");
    }
    assert!(f.found(&name, "/etc/passwd").await.is_some());
}

pub(crate) async fn links_in_parents_are_followed_inside_only(f: &Fixture) {
    let name = f.with_files("one").await;
    let links = [
        folder("/real", 0o755, Owner::ROOT),
        link("/absolute", "/real"),
        link("/relative", "real"),
        link("/up", "../../../../../../../../real"),
    ];
    f.change(&name, &links).await;
    f.change(
        &name,
        &[file("/absolute/a", "a"), file("/relative/r", "r"), file("/up/u", "u")],
    )
    .await;
    for (at, text) in [("/real/a", "a"), ("/real/r", "r"), ("/real/u", "u")] {
        assert_eq!(f.text(&name, at).await, text);
    }
    assert!(f.found(&name, "/up/a").await.is_some(), "looking follows them as well");
}
