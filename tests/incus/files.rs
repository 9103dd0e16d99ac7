//! Files that are many, large, or not what they seem.

use std::io::Write as _;
use std::time::{Duration, Instant};

use sbx_apply::backend::{ErrorKind, FileChange};
use sbx_apply::model::{Content, Data, Digest, Hasher, Owner, Query, Shape};

use crate::conformance::fixture::{Fixture, USER, fails, file, file_as, folder, incus, link, mode, nothing, path, run};

#[tokio::test]
async fn what_a_guest_plants_does_not_hang_us() {
    run(incus().await, async |f: &Fixture| {
        let name = f.running("one").await;
        f.shell(
            &name,
            "mkfifo /fifo /etc/fifo; mkdir /folder; mkfifo /folder/fifo; ln -s /fifo /link",
        )
        .await;
        let started = Instant::now();
        for special in ["/fifo", "/link"] {
            fails(f.backend.read(&name, &path(special), 10).await, ErrorKind::Invalid);
            let attributes = FileChange::Attributes {
                path: path(special),
                mode: mode(0o600),
                owner: Owner::ROOT,
            };
            fails(f.backend.change_files(&name, &[attributes]).await, ErrorKind::Invalid);
        }
        fails(
            f.backend.change_files(&name, &[file("/fifo/below", "x")]).await,
            ErrorKind::Invalid,
        );
        assert_eq!(f.found(&name, "/fifo").await.expect("is there").shape, Shape::Special);
        // All of them can be replaced or removed.
        f.change(
            &name,
            &[file("/link", "a file"), file("/fifo", "a file"), nothing("/folder")],
        )
        .await;
        assert_eq!(f.text(&name, "/fifo").await, "a file");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        // Nothing is left beside them.
        let entries = f.backend.list_files(&name, &path("/etc"), false).await.expect("lists");
        assert!(entries.iter().all(|entry| !entry.path.as_str().contains(".sbx-apply")));
    })
    .await;
}

#[tokio::test]
async fn large_sources_stream_both_ways() {
    run(incus().await, async |f: &Fixture| {
        let name = f.stopped("one").await;
        let mut source = tempfile::NamedTempFile::new().expect("a file");
        let mut hasher = Hasher::new();
        for index in 0..20_u8 {
            let block = vec![index; 1 << 20];
            hasher.update(&block);
            source.write_all(&block).expect("writes");
        }
        // Not a whole number of blocks.
        hasher.update(b"end");
        source.write_all(b"end").expect("writes");
        let write = |digest: Digest| FileChange::Write {
            path: path("/large"),
            content: Content {
                digest,
                size: (20 << 20) + 3,
                data: Data::Path(source.path().to_owned()),
            },
            mode: mode(0o640),
            owner: Some(USER),
        };
        let digest = hasher.finish();
        f.change(&name, &[write(digest.clone())]).await;
        let expected = Shape::File {
            digest: Some(digest.clone()),
            size: (20 << 20) + 3,
            content: None,
        };
        assert_eq!(f.found(&name, "/large").await.expect("is there").shape, expected);
        // One that has moved since is refused, and what stands there stays.
        let moved = f.backend.change_files(&name, &[write(Digest::of(b"before"))]).await;
        fails(moved, ErrorKind::Invalid);
        assert_eq!(f.found(&name, "/large").await.expect("is there").shape, expected);
        let entries = f.backend.list_files(&name, &path("/root"), false).await.expect("lists");
        assert!(entries.iter().all(|entry| !entry.path.as_str().contains(".sbx-apply")));
    })
    .await;
}

#[tokio::test]
async fn trees_go_in_and_come_back_whole() {
    run(incus().await, async |f: &Fixture| {
        let name = f.stopped("one").await;
        let mut batch = vec![folder("/srv/app", 0o755, USER)];
        for outer in 0..10 {
            batch.push(folder(&format!("/srv/app/{outer}"), 0o755, USER));
            for inner in 0..30 {
                batch.push(file_as(
                    &format!("/srv/app/{outer}/{inner}"),
                    format!("{outer}/{inner}"),
                    0o644,
                    USER,
                ));
            }
        }
        assert_eq!(f.change(&name, &batch).await, vec![false; 311]);
        assert_eq!(f.change(&name, &batch).await, vec![true; 311]);
        let query = Query {
            opaque: ["/srv/app/7/21"].map(path).into(),
            below: ["/srv/app"].map(path).into(),
            ..Query::default()
        };
        let found = f.backend.inspect(&name, &query).await.expect("inspects");
        assert_eq!(found.0.len(), 310);
        assert!(found.0.values().all(|found| found.owner == USER));
        let Shape::File { digest, content, .. } = &found.get(&path("/srv/app/7/21")).expect("is there").shape else {
            panic!("a file");
        };
        assert_eq!((digest, content), (&Some(Digest::of(b"7/21")), &None));
        f.change(&name, &[nothing("/srv/app")]).await;
        assert_eq!(f.found(&name, "/srv/app").await, None);
    })
    .await;
}

#[tokio::test]
async fn names_that_are_no_text_do_no_harm() {
    run(incus().await, async |f: &Fixture| {
        let name = f.running("one").await;
        let made = f
            .shell(
                &name,
                r"mkdir /odd; cd /odd; touch plain $(printf '\377\376'); mkdir $(printf 'd\377')",
            )
            .await;
        assert_eq!(made.code, 0);
        let query = Query {
            below: ["/odd"].map(path).into(),
            ..Query::default()
        };
        let found = f.backend.inspect(&name, &query).await.expect("inspects");
        let told = ["/odd/d\u{fffd}", "/odd/plain", "/odd/\u{fffd}\u{fffd}"].map(path);
        assert_eq!(found.0.keys().collect::<Vec<_>>(), told.iter().collect::<Vec<_>>());
        f.change(&name, &[nothing("/odd")]).await;
        assert_eq!(f.found(&name, "/odd").await, None);
    })
    .await;
}

#[tokio::test]
async fn what_a_killed_run_left_is_cleared_away() {
    run(incus().await, async |f: &Fixture| {
        let name = f.running("one").await;
        let temporary = |at: &str| format!("/srv/.sbx-apply-{:.16}", Digest::of(at.as_bytes()).as_str());
        let (file_at, link_at) = (temporary("/srv/file"), temporary("/srv/link"));
        for plant in [
            "echo half > TEMP",
            "ln -s /etc/passwd TEMP",
            "mkdir -p TEMP/folder; ln -s /etc TEMP/etc",
            "mkfifo TEMP",
        ] {
            let plant = |at: &str| plant.replace("TEMP", at);
            let planted = format!("mkdir -p /srv; {}; {}", plant(&file_at), plant(&link_at));
            assert_eq!(f.shell(&name, &planted).await.code, 0);
            f.change(&name, &[file("/srv/file", "whole"), link("/srv/link", "target")])
                .await;
            assert_eq!(f.text(&name, "/srv/file").await, "whole");
            let left = f.backend.list_files(&name, &path("/srv"), false).await.expect("lists");
            let left: Vec<_> = left.iter().map(|entry| entry.path.as_str()).collect();
            assert_eq!(left, ["/srv/file", "/srv/link"]);
        }
        assert!(f.text(&name, "/etc/passwd").await.contains("root"));
        // In a tree that is kept clean, a plan finds it and wants it gone while it is made anew.
        let paths: Vec<_> = (0..12).map(|index| format!("/srv/file{index}")).collect();
        for round in 0..5 {
            let planted: String = paths
                .iter()
                .map(|at| format!("echo half > {}; ", temporary(at)))
                .collect();
            assert_eq!(f.shell(&name, &planted).await.code, 0);
            let gone = paths.iter().map(|at| nothing(&temporary(at)));
            let made = paths.iter().map(|at| file(at, format!("{round}")));
            let changes: Vec<_> = gone.chain(made).collect();
            f.change(&name, &changes).await;
            for at in &paths {
                assert_eq!(f.text(&name, at).await, format!("{round}"));
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_without_end_is_not_looked_at() {
    run(incus().await, async |f: &Fixture| {
        let name = f.running("one").await;
        let made = f
            .shell(
                &name,
                "mkdir /many; cd /many; seq 1 100001 | xargs touch; mkdir /few; touch /few/one",
            )
            .await;
        assert_eq!(made.code, 0);
        let query = |folder: &str| Query {
            below: [folder].map(path).into(),
            ..Query::default()
        };
        let error = fails(f.backend.inspect(&name, &query("/many")).await, ErrorKind::Invalid);
        assert!(error.to_string().contains("/many"), "{error}");
        fails(
            f.backend.list_files(&name, &path("/many"), false).await,
            ErrorKind::Invalid,
        );
        assert_eq!(
            f.backend
                .inspect(&name, &query("/few"))
                .await
                .expect("inspects")
                .0
                .len(),
            1
        );
    })
    .await;
}
