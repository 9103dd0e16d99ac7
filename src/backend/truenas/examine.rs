//! What a system gives sandboxes, for `doctor`.

use super::TrueNas;
use crate::backend::{Examination, Finding, Observe as _, Settings};

/// Looks at all of it; reads only.
pub(super) async fn examine(settings: &Settings) -> Examination {
    let mut examination = Examination::default();
    let findings = &mut examination.findings;
    let truenas = match TrueNas::open(settings).await {
        Ok(truenas) => truenas,
        Err(error) => {
            findings.push(Finding::broken("connection", &error));
            return examination;
        }
    };
    let address = truenas.client.address();
    findings.push(Finding::good(
        "system",
        format!("TrueNAS {} at {address}", truenas.version.text),
    ));
    findings.push(Finding::good("API key", "lets in"));
    match truenas.dialect.pool().await {
        Ok(pool) => findings.push(Finding::good("pool", pool)),
        Err(error) => findings.push(Finding::broken("pool", &error)),
    }
    match truenas.dialect.network().await {
        Ok(network) => findings.push(Finding::good("network", network)),
        Err(error) => findings.push(Finding::broken("network", &error)),
    }
    match truenas.dialect.machines().await {
        Ok(machines) => findings.push(Finding::good("containers", format!("{} are there", machines.len()))),
        Err(error) => findings.push(Finding::broken("containers", &error)),
    }
    examination.answers = truenas.describe().await.ok();
    examination.capabilities = Some(truenas.capabilities.clone());
    let _ = crate::backend::Backend::close(&truenas).await;
    examination
}
