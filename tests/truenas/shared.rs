//! The backend at simulated systems that tests at the same time share.

use std::sync::{Arc, Weak};

use sbx_apply::backend::{Registry, Sandboxes, Settings};
use tokio::sync::Mutex;

use super::sim::{Dialect, Knobs, Sim};

/// An image that the simulation offers.
pub(crate) const IMAGE: &str = "debian/bookworm";

/// One for each dialect, for as long as somebody uses it.
static SHARED: [Mutex<Weak<Sim>>; 3] = [const { Mutex::const_new(Weak::new()) }; 3];

/// A system without faults, and a backend of its own for the caller.
pub(crate) async fn open(dialect: Dialect) -> (Arc<Sim>, Arc<dyn Sandboxes>) {
    let index = Dialect::ALL.iter().position(|one| *one == dialect).expect("one of all");
    let mut shared = SHARED[index].lock().await;
    let sim = match shared.upgrade() {
        Some(sim) => sim,
        None => {
            let sim = Arc::new(Sim::start(dialect, Knobs::default()).await);
            *shared = Arc::downgrade(&sim);
            sim
        }
    };
    let backend = Registry::standard().open("truenas", &settings(&sim)).await;
    (sim, backend.expect("a simulation can be opened"))
}

/// What reaches a system.
pub(crate) fn settings(sim: &Sim) -> Settings {
    let settings = [
        ("host", sim.host().to_owned()),
        ("port", sim.port().to_string()),
        ("plain", "true".to_owned()),
        ("username", sim.username().to_owned()),
        ("api-key", sim.key().to_owned()),
    ];
    settings.map(|(key, value)| (key.to_owned(), value)).into()
}
