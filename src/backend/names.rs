//! What names lead to, as this machine sees it.

use std::time::Duration;

use crate::model::Resolved;

/// How long a name may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// All addresses of a name, by this machine's own resolver: its hosts file, its name servers. An IPv4 address in the form of
/// one of IPv6 is that IPv4 address.
pub async fn resolve(name: &str) -> Resolved {
    match tokio::time::timeout(PATIENCE, tokio::net::lookup_host((name, 0))).await {
        Ok(Ok(found)) => Ok(found.map(|found| found.ip().to_canonical()).collect()),
        Ok(Err(error)) => Err(words(&error.to_string())),
        Err(_) => Err(format!("no answer within {} seconds", PATIENCE.as_secs())),
    }
}

/// Without what the standard library says before the resolver's own words.
fn words(error: &str) -> String {
    let own = error.strip_prefix("failed to lookup address information: ");
    own.unwrap_or(error).to_owned()
}
