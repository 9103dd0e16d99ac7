//! The API's own shapes, with its own names.
//!
//! Source: the REST API specification of Incus 6.0 (`doc/rest-api.yaml`). Only the fields that are used are
//! read; what is written back as a whole (`InstancePut`) has every field, or it would be lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// A flat map of settings.
pub(super) type Config = BTreeMap<String, String>;

/// Devices by name, each a flat map.
pub(super) type Devices = BTreeMap<String, Config>;

/// What every answer is wrapped in.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope<T> {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) error_code: u16,
    #[serde(default)]
    pub(super) error: String,
    #[serde(default = "none")]
    pub(super) metadata: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

/// The daemon writes some empty lists and maps as `null`.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Something that runs in the background.
#[derive(Debug, Deserialize)]
pub(super) struct Operation {
    pub(super) id: String,
    /// What it does, in the daemon's words.
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) status_code: u16,
    #[serde(default)]
    pub(super) err: String,
    #[serde(default)]
    pub(super) metadata: Option<Value>,
    /// `task`, or `websocket` for commands and the like.
    #[serde(default)]
    pub(super) class: String,
    /// What it works on: the addresses of instances, and of other things, by kind.
    #[serde(default, deserialize_with = "nullable")]
    pub(super) resources: BTreeMap<String, Vec<String>>,
}

/// `GET /1.0`.
#[derive(Debug, Deserialize)]
pub(super) struct Server {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) api_extensions: Vec<String>,
    #[serde(default)]
    pub(super) auth: String,
    #[serde(default)]
    pub(super) environment: ServerEnvironment,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct ServerEnvironment {
    #[serde(default)]
    pub(super) server_version: String,
    #[serde(default)]
    pub(super) server_clustered: bool,
    /// The member that answers.
    #[serde(default)]
    pub(super) server_name: String,
    #[serde(default)]
    pub(super) certificate_fingerprint: String,
}

/// An instance, its state and snapshots where they were asked for.
#[derive(Debug, Deserialize)]
pub(super) struct Instance {
    pub(super) name: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) created_at: String,
    #[serde(default)]
    pub(super) location: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) expanded_devices: Devices,
    #[serde(flatten)]
    pub(super) put: InstancePut,
    #[serde(default)]
    pub(super) state: Option<State>,
    #[serde(default)]
    pub(super) snapshots: Option<Vec<Snapshot>>,
}

/// What of an instance can be written.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub(super) struct InstancePut {
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: Config,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) devices: Devices,
    #[serde(default)]
    pub(super) ephemeral: bool,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) profiles: Vec<String>,
    #[serde(default)]
    pub(super) stateful: bool,
}

/// A new instance.
#[derive(Debug, Serialize)]
pub(super) struct InstancesPost {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) config: Config,
    pub(super) devices: Devices,
    pub(super) profiles: Vec<String>,
    pub(super) ephemeral: bool,
    pub(super) source: Source,
    pub(super) start: bool,
}

/// Where a new instance's disk comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Source {
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alias: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) source: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) instance_only: bool,
}

/// A change of power.
#[derive(Debug, Serialize)]
pub(super) struct StatePut {
    pub(super) action: &'static str,
    pub(super) timeout: i64,
    pub(super) force: bool,
}

/// What runs right now.
#[derive(Debug, Deserialize)]
pub(super) struct State {
    #[serde(default)]
    pub(super) network: Option<BTreeMap<String, Interface>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Interface {
    #[serde(default, deserialize_with = "nullable")]
    pub(super) addresses: Vec<Address>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Address {
    pub(super) address: String,
    pub(super) scope: String,
}

/// A snapshot.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Snapshot {
    pub(super) name: String,
    #[serde(default)]
    pub(super) created_at: String,
    #[serde(default)]
    pub(super) expires_at: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: Config,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) devices: Devices,
    /// Bytes, or less than none where the pool cannot tell.
    #[serde(default)]
    pub(super) size: i64,
}

/// A new snapshot.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotsPost<'a> {
    pub(super) name: &'a str,
    pub(super) stateful: bool,
    pub(super) expires_at: String,
}

/// A set of settings and devices that instances share.
#[derive(Debug, Deserialize)]
pub(super) struct Profile {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) config: Config,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default, deserialize_with = "nullable")]
    pub(super) devices: Devices,
}

/// What of a profile can be written.
#[derive(Debug, Clone, Serialize)]
pub(super) struct ProfilePut {
    pub(super) config: Config,
    pub(super) description: String,
    pub(super) devices: Devices,
}

/// A new profile.
#[derive(Debug, Serialize)]
pub(super) struct ProfilesPost {
    pub(super) name: String,
    #[serde(flatten)]
    pub(super) put: ProfilePut,
}

/// Another name for a profile.
#[derive(Debug, Serialize)]
pub(super) struct ProfilePost<'a> {
    pub(super) name: &'a str,
}

/// An image, or what an alias leads to.
#[derive(Debug, Deserialize)]
pub(super) struct Image {
    pub(super) fingerprint: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct ImageAlias {
    pub(super) target: String,
}

/// A command to run.
#[derive(Debug, Serialize)]
pub(super) struct ExecPost<'a> {
    pub(super) command: &'a [String],
    pub(super) environment: Config,
    pub(super) interactive: bool,
    #[serde(rename = "wait-for-websocket")]
    pub(super) wait_for_websocket: bool,
    #[serde(rename = "record-output")]
    pub(super) record_output: bool,
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) cwd: &'a str,
    /// Columns and rows of an interactive one's terminal.
    pub(super) width: u16,
    pub(super) height: u16,
}
