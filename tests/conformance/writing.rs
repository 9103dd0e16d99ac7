//! Regular files.

use sbx_apply::backend::FileChange;
use sbx_apply::model::{Capability, Content, Digest, Owner, Shape};

use super::fixture::{Fixture, file, file_as, folder, link, mode, path};

pub(crate) async fn any_bytes_come_back(f: &Fixture) {
    let name = f.with_files("one").await;
    let every: Vec<u8> = (0..=255).collect();
    f.change(&name, &[file("/every", &every), file("/empty", "")]).await;
    let read = f.backend.read(&name, &path("/every"), 1000).await.expect("reads");
    assert_eq!(read, (every.clone(), false));
    let read = f.backend.read(&name, &path("/empty"), 1000).await.expect("reads");
    assert_eq!(read, (vec![], false));
    let shape = |bytes: &[u8]| Shape::File {
        digest: Some(Digest::of(bytes)),
        size: bytes.len() as u64,
        content: Some(bytes.into()),
    };
    let found = f.look(&name, &["/every", "/empty"]).await;
    assert_eq!(
        found.get(&path("/every")).map(|found| &found.shape),
        Some(&shape(&every))
    );
    assert_eq!(found.get(&path("/empty")).map(|found| &found.shape), Some(&shape(b"")));
}

pub(crate) async fn large_files_come_back(f: &Fixture) {
    let name = f.with_files("one").await;
    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    f.change(&name, &[file("/large", &bytes)]).await;
    let (read, truncated) = f.backend.read(&name, &path("/large"), u64::MAX).await.expect("reads");
    assert!(read == bytes && !truncated);
    let found = f.found(&name, "/large").await.expect("is there");
    let shape = Shape::File {
        digest: Some(Digest::of(&bytes)),
        size: bytes.len() as u64,
        content: None,
    };
    assert_eq!(found.shape, shape);
}

pub(crate) async fn mode_and_owner_are_as_asked(f: &Fixture) {
    let name = f.with_files("one").await;
    let cases = [
        ("/open", 0o777, Owner::ROOT),
        ("/shut", 0o000, Owner::ROOT),
        ("/theirs", 0o640, f.user()),
        (
            "/nobodys",
            0o600,
            match f.able(Capability::Owners) {
                true => Owner { uid: 54_321, gid: 7 },
                false => Owner::ROOT,
            },
        ),
    ];
    f.change(&name, &cases.map(|(at, bits, owner)| file_as(at, "x", bits, owner)))
        .await;
    for (at, bits, owner) in cases {
        let found = f.found(&name, at).await.expect("is there");
        assert_eq!((found.mode, found.owner), (mode(bits), owner), "{at}");
    }
    let unowned = FileChange::Write {
        path: path("/unowned"),
        content: Content::inline(&b"x"[..]),
        mode: mode(0o604),
        owner: None,
    };
    f.change(&name, &[unowned]).await;
    assert_eq!(f.found(&name, "/unowned").await.expect("is there").mode, mode(0o604));
}

pub(crate) async fn writing_again_replaces_all_of_it(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file_as("/text", "a long first text", 0o644, Owner::ROOT)])
        .await;
    f.change(&name, &[file_as("/text", "short", 0o600, f.user())]).await;
    assert_eq!(f.text(&name, "/text").await, "short");
    let found = f.found(&name, "/text").await.expect("is there");
    assert_eq!((found.mode, found.owner), (mode(0o600), f.user()));
}

pub(crate) async fn missing_parents_are_made_with_the_same_owner(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file_as("/new/deep/er/file", "x", 0o600, f.user())])
        .await;
    for at in ["/new", "/new/deep", "/new/deep/er"] {
        let found = f.found(&name, at).await.expect("is there");
        assert_eq!(found.shape, Shape::Directory, "{at}");
        assert_eq!((found.mode, found.owner), (mode(0o755), f.user()), "{at}");
    }
}

pub(crate) async fn existing_parents_are_left_alone(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[folder("/kept", 0o711, Owner::ROOT)]).await;
    f.change(&name, &[file_as("/kept/new/file", "x", 0o600, f.user())])
        .await;
    let kept = f.found(&name, "/kept").await.expect("is there");
    assert_eq!((kept.mode, kept.owner), (mode(0o711), Owner::ROOT));
    assert_eq!(f.found(&name, "/kept/new").await.expect("is there").owner, f.user());
}

pub(crate) async fn a_file_replaces_a_link_and_spares_its_target(f: &Fixture) {
    let name = f.with_files("one").await;
    let before = [
        file("/target", "spared"),
        link("/good", "/target"),
        link("/dangling", "/nowhere"),
        link("/to-folder", "/etc"),
    ];
    f.change(&name, &before).await;
    let links = ["/good", "/dangling", "/to-folder"];
    f.change(&name, &links.map(|at| file(at, "new"))).await;
    for at in links {
        let found = f.found(&name, at).await.expect("is there");
        assert!(matches!(found.shape, Shape::File { size: 3, .. }), "{at}: {found:?}");
    }
    assert_eq!(f.text(&name, "/target").await, "spared");
    assert_eq!(f.found(&name, "/nowhere").await, None);
    assert!(f.found(&name, "/etc/passwd").await.is_some());
}

pub(crate) async fn a_file_replaces_a_folder(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/folder/with/more", "x"), link("/folder/out", "/etc")])
        .await;
    f.change(&name, &[file("/folder", "a file now")]).await;
    assert_eq!(f.text(&name, "/folder").await, "a file now");
    assert!(f.found(&name, "/etc/passwd").await.is_some(), "links are not followed");
}

pub(crate) async fn a_file_below_a_file_cannot_be_written(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/file", "kept")]).await;
    let written = f.backend.change_files(&name, &[file("/file/below", "x")]).await;
    assert!(written.is_err(), "a parent is no folder");
    assert_eq!(f.text(&name, "/file").await, "kept");
}
