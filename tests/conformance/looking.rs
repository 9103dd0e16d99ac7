//! Inspections.

use sbx_apply::model::{Digest, Inspection, InstanceName, Owner, Query, Shape};

use super::fixture::{Fixture, file, file_as, folder, link, mode, path};

async fn ask(f: &Fixture, name: &InstanceName, paths: &[&str], opaque: &[&str], below: &[&str]) -> Inspection {
    let set = |texts: &[&str]| texts.iter().copied().map(path).collect();
    let query = Query {
        paths: set(paths),
        opaque: set(opaque),
        below: set(below),
        ..Query::default()
    };
    f.backend.inspect(name, &query).await.expect("inspects")
}

fn content(found: &Inspection, at: &str) -> Option<Vec<u8>> {
    match &found.get(&path(at))?.shape {
        Shape::File { content, .. } => content.as_ref().map(|bytes| bytes.to_vec()),
        _ => None,
    }
}

pub(crate) async fn absent_paths_are_not_in_the_answer(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(
        &name,
        &[file("/file", "x"), link("/lost", "/nowhere"), link("/loop", "/loop")],
    )
    .await;
    let absent = ["/none", "/none/below", "/file/below", "/lost/below", "/loop/below"];
    assert_eq!(
        ask(f, &name, &absent, &["/none"], &["/none", "/file"]).await,
        Inspection::default()
    );
    assert_eq!(ask(f, &name, &[], &[], &[]).await, Inspection::default());
}

pub(crate) async fn the_shapes_of_things_are_told(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file_as("/file", "text", 0o640, f.user()),
        folder("/folder", 0o750, f.user()),
        link("/link", "/file"),
    ];
    f.change(&name, &batch).await;
    let found = f.look(&name, &["/file", "/folder", "/link"]).await;
    assert_eq!(found.0.len(), 3);
    let at = |text: &str| found.get(&path(text)).expect("is there").clone();
    let text = Shape::File {
        digest: Some(Digest::of(b"text")),
        size: 4,
        content: Some(b"text"[..].into()),
    };
    assert_eq!(
        (at("/file").shape, at("/file").mode, at("/file").owner),
        (text, mode(0o640), f.user())
    );
    assert_eq!(
        (at("/folder").shape, at("/folder").mode),
        (Shape::Directory, mode(0o750))
    );
    assert_eq!(at("/link").shape, Shape::Symlink("/file".to_owned()));
}

pub(crate) async fn contents_come_along_up_to_the_bound(f: &Fixture) {
    let name = f.with_files("one").await;
    let kept = usize::try_from(Inspection::KEPT).expect("fits");
    f.change(
        &name,
        &[file("/just", vec![b'x'; kept]), file("/more", vec![b'x'; kept + 1])],
    )
    .await;
    let found = f.look(&name, &["/just", "/more"]).await;
    assert_eq!(content(&found, "/just").map(|bytes| bytes.len()), Some(kept));
    assert_eq!(content(&found, "/more"), None);
    let Some(Shape::File { digest, size, .. }) = found.get(&path("/more")).map(|found| found.shape.clone()) else {
        panic!("a file");
    };
    assert_eq!(
        (digest, size),
        (Some(Digest::of(&vec![b'x'; kept + 1])), Inspection::KEPT + 1)
    );
}

pub(crate) async fn opaque_contents_stay(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/in/secret", "s3cret"), file("/in/open", "open")])
        .await;
    let found = ask(f, &name, &["/in/secret", "/in/open"], &["/in/secret"], &["/in"]).await;
    let secret = Shape::File {
        digest: Some(Digest::of(b"s3cret")),
        size: 6,
        content: None,
    };
    assert_eq!(found.get(&path("/in/secret")).map(|found| &found.shape), Some(&secret));
    assert_eq!(content(&found, "/in/open").as_deref(), Some(&b"open"[..]));
}

pub(crate) async fn below_is_everything_below(f: &Fixture) {
    let name = f.with_files("one").await;
    let batch = [
        file("/tree/a/b/file", "x"),
        folder("/tree/empty", 0o755, Owner::ROOT),
        link("/tree/link", "/etc"),
        link("/tree-link", "/tree"),
        file("/treetop", "no part of it"),
    ];
    f.change(&name, &batch).await;
    let found = ask(f, &name, &[], &[], &["/tree", "/tree-link"]).await;
    let paths: Vec<_> = found.0.keys().map(|path| path.as_str()).collect();
    assert_eq!(
        paths,
        ["/tree/a", "/tree/a/b", "/tree/a/b/file", "/tree/empty", "/tree/link"],
        "neither the folder itself, nor what links lead to"
    );
    let leaf = |found: &Inspection| found.get(&path("/tree/a/b/file")).map(|found| found.shape.clone());
    let unread = leaf(&found);
    assert!(
        matches!(
            unread,
            Some(Shape::File {
                digest: None,
                size: 1,
                ..
            })
        ),
        "{unread:?}"
    );
    let found = ask(f, &name, &[], &["/tree/a/b/file"], &["/tree"]).await;
    let named = leaf(&found);
    assert!(matches!(named, Some(Shape::File { digest: Some(of), .. }) if of == Digest::of(b"x")));
}

pub(crate) async fn what_is_larger_than_the_bound_is_not_read(f: &Fixture) {
    let name = f.with_files("one").await;
    f.change(&name, &[file("/just", "1234"), file("/more", "12345")]).await;
    let query = Query {
        paths: ["/just", "/more"].map(path).into(),
        bound: 4,
        ..Query::default()
    };
    let found = f.backend.inspect(&name, &query).await.expect("inspects");
    let shape = |at: &str| found.get(&path(at)).map(|found| found.shape.clone());
    assert!(matches!(
        shape("/just"),
        Some(Shape::File {
            digest: Some(_),
            size: 4,
            ..
        })
    ));
    assert_eq!(
        shape("/more"),
        Some(Shape::File {
            digest: None,
            size: 5,
            content: None
        })
    );
}

pub(crate) async fn special_files_are_told_and_not_opened(f: &Fixture) {
    let name = f.running("one").await;
    f.change(&name, &[folder("/pipes", 0o755, Owner::ROOT)]).await;
    assert_eq!(f.shell(&name, "mkfifo /pipes/pipe").await.code, 0);
    // Opening a FIFO to read it would wait for a writer for ever.
    let found = ask(f, &name, &["/pipes/pipe"], &[], &["/pipes"]).await;
    assert_eq!(
        found.get(&path("/pipes/pipe")).map(|found| &found.shape),
        Some(&Shape::Special)
    );
    f.change(&name, &[file("/pipes/pipe", "a file now")]).await;
    assert_eq!(f.text(&name, "/pipes/pipe").await, "a file now");
}
