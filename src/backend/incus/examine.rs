//! What a daemon gives sandboxes.

use reqwest::Url;
use serde_json::Value;

use super::Incus;
use super::convert;
use crate::backend::{Error, ErrorKind, Examination, Finding, Observe as _, Settings};

/// Looks at all of it; reads only.
pub(super) async fn examine(settings: &Settings) -> Examination {
    let mut examination = Examination::default();
    let mut incus = match Incus::open(settings).await {
        Ok(incus) => incus,
        Err(error) => {
            examination.findings.push(Finding::broken("connection", &error));
            return examination;
        }
    };
    let findings = &mut examination.findings;
    match incus.client.server().await {
        Ok(server) => {
            let environment = &server.environment;
            let kind = if environment.server_clustered {
                ", a cluster"
            } else {
                ""
            };
            findings.push(Finding::good(
                "server",
                format!("Incus {} at {}{kind}", environment.server_version, incus.client.place()),
            ));
            findings.push(Finding::good("API", "has every extension that is needed"));
        }
        Err(error) => {
            let what = match error.kind() {
                ErrorKind::Unsupported => "API",
                _ => "server",
            };
            findings.push(Finding::broken(what, &error));
            return examination;
        }
    }
    match incus.learn().await {
        Ok(()) => findings.push(Finding::good("project", incus.client.project())),
        Err(error) => {
            findings.push(Finding::broken("project", &error));
            return examination;
        }
    }
    findings.extend(incus.places().await);
    findings.push(match incus.remotes.image_servers() {
        servers if servers.is_empty() => Finding::lacking(
            "image servers",
            "none is known",
            "add one with `incus remote add`, or name images that the daemon has",
        ),
        servers => Finding::good("image servers", servers.join(", ")),
    });
    examination.answers = incus.describe().await.ok();
    examination.capabilities = Some(incus.capabilities.clone());
    examination
}

impl Incus {
    /// The profiles of new instances, and the pool and the network that they get from these or from the settings.
    async fn places(&self) -> Vec<Finding> {
        let given = match self.profile_devices().await {
            Ok(given) => given,
            Err(error) => {
                let hint = "name one that there is, with the setting `profile`";
                return vec![Finding::broken("profile", &error.with_hint(hint))];
            }
        };
        let mut findings = vec![Finding::good("profile", self.profiles.join(", "))];
        let of_profile = convert::root(given).and_then(|(_, device)| device.get("pool"));
        findings.push(match self.pool.as_ref().or(of_profile) {
            Some(pool) => {
                self.exists("pool", pool, self.client.url(["storage-pools", pool]))
                    .await
            }
            None => Finding::broken(
                "pool",
                &Error::new(ErrorKind::Invalid, "the profile has no root disk, and no pool is named")
                    .with_hint("make a pool with `incus storage create`, and name it with the setting `pool`"),
            ),
        });
        let nic = given
            .values()
            .find(|device| device.get("type").is_some_and(|kind| kind == "nic"));
        let of_profile = nic.and_then(|device| device.get("network").or_else(|| device.get("parent")));
        findings.push(match (self.network.as_ref(), of_profile) {
            (Some(network), _) => {
                self.exists("network", network, self.client.url(["networks", network]))
                    .await
            }
            (None, Some(network)) => Finding::good("network", format!("{network}, the profile's")),
            (None, None) => Finding::lacking(
                "network",
                "the profile has none",
                "name one with the setting `network`, or give the profile a device of the type nic",
            ),
        });
        findings
    }

    async fn exists(&self, what: &'static str, name: &str, url: Url) -> Finding {
        match self.client.get::<Value>(&url).await {
            Ok((found, _)) => {
                let driver = found
                    .get("driver")
                    .or_else(|| found.get("type"))
                    .and_then(Value::as_str);
                Finding::good(
                    what,
                    driver.map_or_else(|| name.to_owned(), |driver| format!("{name} ({driver})")),
                )
            }
            // Whoever may use it need not be allowed to look at it.
            Err(error) if error.kind() == ErrorKind::Unauthorised => Finding::good(what, name),
            Err(error) => Finding::broken(what, &error.within(format_args!("`{name}`"))),
        }
    }
}
