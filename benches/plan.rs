//! Parse + plan for 1,000 sandboxes, a thousand different blocks with three files each: in sync, and with one
//! line in ten changed. Goal: under 50 ms each.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use sbx_apply::apply::{Interrupt, apply, observe};
use sbx_apply::backend::Observe as _;
use sbx_apply::backend::memory::Memory;
use sbx_apply::model::{Desired, Live};
use sbx_apply::plan::{Options, Plan, plan};
use sbx_apply::spec::{Format, Request, load};

const SANDBOXES: usize = 1_000;

/// A spec; with `cpu` every tenth sandbox says something else.
fn spec(cpu: u32) -> String {
    let mut text = r#"
environment "bench"
defaults { image "debian/12"; memory "1GiB"; state "stopped"; }
template "common" {
    file "/etc/one.conf" content="one" mode="0600"
    file "/srv/two" content="two" owner=1000 group=1000
}
"#
    .to_owned();
    for index in 0..SANDBOXES {
        let cpu = if index % 10 == 0 { cpu } else { 1 };
        text.push_str(&format!(
            "sandbox \"s{index}\" {{ use \"common\"; cpu {cpu}; env INDEX=\"{index}\"; file \"/etc/motd\" content=\"{index}\"; }}\n"
        ));
    }
    text
}

fn parse(text: &str) -> Desired {
    load(&Request::text("bench.kdl", text, Some(Format::Kdl)))
        .expect("a good spec")
        .desired
}

/// The memory backend after an apply of the spec, as a plan sees it.
fn applied(desired: &Desired, backend: &Memory) -> Live {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let selected = desired.sandboxes.keys().cloned().collect();
        let live = observe(backend, desired, &selected).await.expect("observes");
        let fresh = planned(desired, &live, backend);
        let (_keep, interrupt) = tokio::sync::watch::channel(Interrupt::None);
        let report = apply(&fresh, Some(desired), &live, backend, 4, interrupt, |_| {}).await;
        assert!(report.is_complete(), "{:?}", report.failed);
        observe(backend, desired, &selected).await.expect("observes")
    })
}

fn planned(desired: &Desired, live: &Live, backend: &Memory) -> Plan {
    plan(desired, live, backend.capabilities(), &Options::default()).expect("no targets")
}

fn parse_and_plan(criterion: &mut Criterion) {
    let backend = Memory::new();
    let texts = BTreeMap::from([("in sync", spec(1)), ("one in ten changed", spec(2))]);
    let live = applied(&parse(&texts["in sync"]), &backend);
    assert!(planned(&parse(&texts["in sync"]), &live, &backend).in_sync());
    for (name, text) in &texts {
        criterion.bench_function(&format!("parse + plan, {SANDBOXES} sandboxes, {name}"), |bencher| {
            bencher.iter(|| planned(&parse(black_box(text)), &live, &backend));
        });
    }
    criterion.bench_function("parse alone", |bencher| {
        bencher.iter(|| parse(black_box(&texts["in sync"])));
    });
}

criterion_group!(benches, parse_and_plan);
criterion_main!(benches);
