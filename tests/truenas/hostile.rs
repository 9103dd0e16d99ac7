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

fn root(script: &str) -> ExecOpts {
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
        let planted = backend.output(&name, &root(plant)).await.expect("runs");
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
