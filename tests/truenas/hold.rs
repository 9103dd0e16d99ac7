//! A simulated system to try things by hand:
//!
//! ```sh
//! SBX_TEST_HOLD=25.10 tests/run --test main truenas::hold -- --ignored --nocapture
//! ```
//!
//! It prints the environment in which `sbx-apply` reaches it, and is there until it is interrupted.

use super::sim::{Dialect, Knobs, Sim};
use crate::support::daemon::tell;

#[tokio::test]
#[ignore = "waits for whoever tries things by hand"]
async fn a_system_to_try() {
    let dialect = match std::env::var("SBX_TEST_HOLD").as_deref() {
        Ok("25.04") => Dialect::V25_04,
        Ok("26") => Dialect::V26,
        _ => Dialect::V25_10,
    };
    let sim = Sim::start(dialect, Knobs::default()).await;
    tell(&format!(
        "export SBX_HOST={} SBX_PORT={} SBX_PLAIN=true SBX_USERNAME={} SBX_TRUENAS_API_KEY={}",
        sim.host(),
        sim.port(),
        sim.username(),
        sim.key()
    ));
    std::future::pending::<()>().await;
}
