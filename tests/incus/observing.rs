//! What observing costs.

use sbx_apply::backend::incus::Incus;
use sbx_apply::backend::{Backend, CreateOpts, Observe as _, ReadFiles as _, Result, Scope, Settings, Stop};
use sbx_apply::model::{InstanceName, Labels, Query, SandboxName};

use crate::conformance::fixture::{Fixture, incus, path, run};
use crate::support::daemon;

#[tokio::test]
async fn requests_do_not_grow_with_the_environment() {
    let Some(daemon) = daemon::find() else { return };
    run(incus().await, async |f: &Fixture| {
        let settings = Settings::from([("socket".to_owned(), daemon.socket.display().to_string())]);
        let backend = Incus::open(&settings).await.expect("opens");
        backend.describe().await.expect("answers");
        let scope = Scope {
            environment: Some(f.environment()),
            names: [].into(),
        };
        let mut made: Vec<InstanceName> = Vec::new();
        for expected in [1, 2, 3, 4, 5, 2, 2, 2] {
            let before = backend.requests();
            assert_eq!(backend.observe(&scope).await.expect("observes").len(), made.len());
            assert_eq!(backend.requests() - before, expected, "{} instances", made.len());
            let mut opts = f.opts(&format!("s{}", made.len()));
            let sandbox = SandboxName::new(format!("s{}", made.len())).expect("a name");
            let name = InstanceName::observed(&opts.name);
            opts.labels = Labels::owned(&f.environment(), &sandbox, &name);
            Backend::create(&backend, &opts).await.expect("creates");
            Backend::create_snapshot(&backend, &name, "ready")
                .await
                .expect("snapshots");
            made.push(name);
        }
        // Both ways tell the same.
        let many = backend.observe(&scope).await.expect("observes");
        let few = Scope {
            environment: None,
            names: made[..2].iter().cloned().collect(),
        };
        let few: Vec<_> = backend.observe(&few).await.expect("observes");
        for mut one in few.into_iter().filter(|one| made[..2].contains(&one.name)) {
            let mut other = many
                .iter()
                .find(|other| other.name == one.name)
                .expect("in both")
                .clone();
            for live in [&mut one, &mut other] {
                live.snapshots
                    .values_mut()
                    .for_each(|snapshot| snapshot.snapshot.size = None);
            }
            assert_eq!(one, other);
        }
        // Any number of files is one session.
        let query = Query {
            paths: ["/etc/passwd", "/etc/group", "/none"].map(path).into(),
            below: ["/etc"].map(path).into(),
            ..Query::default()
        };
        let before = backend.requests();
        backend.inspect(&made[0], &query).await.expect("inspects");
        assert_eq!(backend.requests() - before, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_is_stopped_an_instance_is_still_ours() {
    run(incus().await, async |f: &Fixture| {
        let mut names = Vec::new();
        for index in 0..6 {
            let sandbox = SandboxName::new(format!("s{index}")).expect("a name");
            let name = f.name(sandbox.as_str());
            let opts = CreateOpts {
                labels: Labels::owned(&f.environment(), &sandbox, &name),
                ..f.opts(sandbox.as_str())
            };
            f.backend.create(&opts).await.expect("creates");
            f.backend.start(&name).await.expect("starts");
            names.push(name);
        }
        let scope = Scope {
            environment: Some(f.environment()),
            names: names.iter().cloned().collect(),
        };
        // More than a few, so that the full listing is asked for, again and again until all are down.
        let stopping = futures_util::future::join_all(names.iter().map(|name| f.backend.stop(name, Stop::Force)));
        let looking = async {
            for _ in 0..20 {
                let found = f.backend.observe(&scope).await.expect("observes");
                let ours = found
                    .iter()
                    .filter(|instance| instance.labels.get(Labels::SANDBOX).is_some());
                assert_eq!(ours.count(), names.len(), "{found:#?}");
            }
        };
        let (stopped, ()) = tokio::join!(stopping, looking);
        assert!(stopped.iter().all(Result::is_ok));
    })
    .await;
}
