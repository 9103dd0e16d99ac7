//! Observing many instances at once.

use sbx_apply::backend::Scope;
use sbx_apply::model::{EnvironmentName, InstanceName, Labels, SandboxName, Status};

use super::fixture::Fixture;

async fn labelled(f: &Fixture, name: &str, environment: &EnvironmentName) -> InstanceName {
    let mut opts = f.opts(name);
    let sandbox = SandboxName::new(name).expect("a name");
    opts.labels = Labels::owned(environment, &sandbox, &f.name(name));
    f.backend.create(&opts).await.expect("creates");
    f.name(name)
}

async fn names(f: &Fixture, environment: Option<EnvironmentName>, names: &[&InstanceName]) -> Vec<InstanceName> {
    let scope = Scope {
        environment,
        names: names.iter().copied().cloned().collect(),
    };
    let mut found: Vec<_> = f
        .backend
        .observe(&scope)
        .await
        .expect("observes")
        .into_iter()
        .map(|live| live.name)
        .collect();
    found.sort();
    found
}

pub(crate) async fn labels_and_names_are_a_scope(f: &Fixture) {
    let other = EnvironmentName::new(format!("{}x", f.environment())).expect("a name");
    let ours = labelled(f, "ours", &f.environment()).await;
    let others = labelled(f, "others", &other).await;
    let plain = f.stopped("plain").await;
    let missing = f.name("missing");
    assert_eq!(names(f, Some(f.environment()), &[]).await, std::slice::from_ref(&ours));
    assert_eq!(
        names(f, Some(f.environment()), &[&plain, &missing]).await,
        [ours.clone(), plain.clone()]
    );
    // One that has both the label and the name is told once.
    assert_eq!(names(f, Some(other), &[&others]).await, std::slice::from_ref(&others));
}

pub(crate) async fn everything_is_in_no_environments_scope(f: &Fixture) {
    let mut made = vec![labelled(f, "ours", &f.environment()).await, f.stopped("plain").await];
    made.sort();
    // Other checks run at the same daemon.
    let mut found = names(f, None, &[]).await;
    found.retain(|name| made.contains(name));
    assert_eq!(found, made);
    let mut listed: Vec<_> = f
        .backend
        .list()
        .await
        .expect("lists")
        .into_iter()
        .map(|instance| instance.name)
        .collect();
    listed.retain(|name| made.contains(name));
    listed.sort();
    assert_eq!(listed, made);
}

pub(crate) async fn what_runs_is_told(f: &Fixture) {
    let name = f.stopped("one").await;
    assert_eq!(f.observed(&name).await.status, Status::Stopped);
    f.backend.start(&name).await.expect("starts");
    assert_eq!(f.observed(&name).await.status, Status::Running);
}

pub(crate) async fn the_moment_of_creation_is_told(f: &Fixture) {
    let (first, second) = (f.stopped("first").await, f.stopped("second").await);
    let first = f.observed(&first).await.created_at.expect("a moment");
    let second = f.observed(&second).await.created_at.expect("a moment");
    // After 2020, so no seconds since the machine's start nor milliseconds.
    assert!((1_577_836_800..10_000_000_000).contains(&first), "{first}");
    assert!(first <= second);
}
