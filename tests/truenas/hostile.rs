//! What a sandbox could do to the system, and does not.

use std::collections::BTreeMap;
use std::time::Duration;

use sbx_apply::backend::{Account, CreateOpts, ErrorKind, ExecOpts, Stop};
use sbx_apply::model::{Content, GuestPath, InstanceName, Labels, Mode, Owner};

use super::shared;
use super::sim::{Dialect, Sim};

fn opts(name: &str) -> CreateOpts {
    CreateOpts {
        name: name.to_owned(),
        image: Some(shared::IMAGE.to_owned()),
        labels: Labels(BTreeMap::from([(Labels::ENVIRONMENT.to_owned(), "hostile".to_owned())])),
        bare: true,
        ..CreateOpts::default()
    }
}

fn root_says(script: &str) -> ExecOpts {
    ExecOpts {
        command: ["/bin/sh", "-ec", script].map(str::to_owned).to_vec(),
        account: Account::root(),
        env: BTreeMap::new(),
        timeout: Some(Duration::from_secs(30)),
    }
}

/// Root inside puts links where the key and other files are written. Nothing goes through the system's own door for
/// files any more once anything of ours has run, so there is nothing for them to lead out.
#[tokio::test]
async fn links_inside_lead_no_write_to_the_system() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let (sim, backend) = shared::open(dialect).await;
        let name = InstanceName::observed(format!("hostile-{}", std::process::id()));
        let clone = InstanceName::observed(format!("hostile-{}-c", std::process::id()));
        backend.create(&opts(name.as_str())).await.expect("creates");
        backend.start(&name).await.expect("starts");
        backend
            .ready(&name, Duration::from_secs(60))
            .await
            .expect("takes commands");
        let plant = "mkdir /away; cp -a /root/.ssh/authorized_keys /away; rm -rf /root/.ssh; ln -s /away /root/.ssh; \
            ln -s /etc /link; echo planted";
        let planted = backend.output(&name, &root_says(plant)).await.expect("runs");
        assert_eq!(planted.stdout, b"planted\n");
        let writes = || {
            let requests = sim.requests().into_iter();
            let named = requests.filter(|request| request.params.to_string().contains(name.as_str()));
            named
                .filter(|request| request.method == "filesystem.file_receive")
                .count()
        };
        let before = writes();
        assert_eq!(before, 1, "the key was put in once");
        let path = GuestPath::new("/link/written").expect("a path");
        let content = Content::inline(b"inside".as_slice());
        let written = backend
            .write(&name, &path, content, Mode::of_bits(0o644), Some(Owner::ROOT))
            .await;
        written.expect("writes inside");
        backend.stop(&name, Stop::Force).await.expect("stops");
        let of_clone = opts(clone.as_str());
        let cloned = sbx_apply::backend::Backend::clone_from(&*backend, &name, None, &of_clone);
        cloned.await.expect("clones");
        backend.start(&clone).await.expect("starts");
        // It has its source's keys, and its source's links.
        let answer = backend.ready(&clone, Duration::from_secs(30)).await;
        if let Err(error) = answer {
            assert!(
                matches!(error.kind(), ErrorKind::Unauthorised | ErrorKind::Timeout),
                "{error}"
            );
        }
        assert_eq!(writes(), before, "nothing was written by the system afterwards");
        assert_eq!(sim.violations(), Vec::<String>::new());
        for name in [&clone, &name] {
            backend.delete(name).await.expect("deletes");
        }
        backend.close().await.expect("closes");
    }
}

/// An image in which the key would be written through a link gets none, wherever that leads.
#[tokio::test]
async fn no_key_is_written_through_an_images_links() {
    if !Sim::has_containers().await {
        return;
    }
    for dialect in Dialect::ALL {
        let (sim, backend) = shared::open(dialect).await;
        for (number, (at, to)) in [
            ("root/.ssh", "/etc"),
            ("root/.ssh", "../tmp"),
            ("root/.ssh/authorized_keys", "../../etc/passwd"),
            ("root", "home"),
        ]
        .into_iter()
        .enumerate()
        {
            let name = InstanceName::observed(format!("linked-{}-{number}", std::process::id()));
            backend.create(&opts(name.as_str())).await.expect("creates");
            let root = sim.root(name.as_str()).expect("a daemon");
            let link = root.join(at);
            if link.is_dir() {
                std::fs::remove_dir_all(&link).expect("is removed");
            }
            std::fs::create_dir_all(link.parent().expect("has one")).expect("makes folders");
            std::os::unix::fs::symlink(to, &link).expect("links");
            backend.start(&name).await.expect("starts");
            let error = backend.output(&name, &root_says("true")).await.expect_err("is refused");
            assert!(error.to_string().contains("is a link"), "{at} to {to}: {error}");
            let written = sim.requests().into_iter().any(|request| {
                request.method == "filesystem.file_receive" && request.params.to_string().contains(name.as_str())
            });
            assert!(!written, "{at} to {to}");
            backend.delete(&name).await.expect("deletes");
        }
        assert_eq!(sim.violations(), Vec::<String>::new());
        backend.close().await.expect("closes");
    }
}
