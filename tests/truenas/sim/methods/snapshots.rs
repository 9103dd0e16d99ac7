//! Snapshots: `zfs.snapshot.*` of 25.04, `pool.snapshot.*` of 25.10 and 26, and what 26 has beside it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::Dialect;
use super::super::check::{Checker, Field, INT, SOME_TEXT, Shape, TEXT, default, optional, required};
use super::super::containers;
use super::super::failure::{Failure, Fault, errno};
use super::super::filter::{self, INSTANCE, QUERY, SCHEMA_QUERY};
use super::super::server::Server;
use super::super::tree::{Refused, Tree};
use super::{Call, Method, Outcome, run};

const PROPERTIES: Shape = Shape::Map(None, &Shape::Any);

const CREATE_25_04: &[Field] = &[
    required("dataset", SOME_TEXT),
    optional("name", SOME_TEXT),
    optional("naming_schema", SOME_TEXT),
    default("recursive", Shape::Bool, "false"),
    default("exclude", Shape::List(&TEXT), "[]"),
    default("suspend_vms", Shape::Bool, "false"),
    default("vmware_sync", Shape::Bool, "false"),
    default("properties", PROPERTIES, "{}"),
];
const CREATE: &[Field] = &[
    required("dataset", SOME_TEXT),
    default("recursive", Shape::Bool, "false"),
    default("exclude", Shape::List(&TEXT), "[]"),
    default("vmware_sync", Shape::Bool, "false"),
    default("properties", PROPERTIES, "{}"),
    required("name", SOME_TEXT),
];

const DELETE: Shape = Shape::Object(
    "PoolSnapshotDeleteOptions",
    &[
        default("defer", Shape::Bool, "false"),
        default("recursive", Shape::Bool, "false"),
    ],
);
const ROLLBACK: Shape = Shape::Object(
    "PoolSnapshotRollbackOptions",
    &[
        default("recursive", Shape::Bool, "false"),
        default("recursive_clones", Shape::Bool, "false"),
        default("force", Shape::Bool, "false"),
        default("recursive_rollback", Shape::Bool, "false"),
    ],
);
const RENAME_25_10: Shape = Shape::Object(
    "PoolSnapshotRenameOptions",
    &[required("new_name", SOME_TEXT), default("force", Shape::Bool, "false")],
);
const RENAME: Shape = Shape::Object(
    "PoolSnapshotRenameOptions",
    &[
        required("new_name", SOME_TEXT),
        default("force", Shape::Bool, "false"),
        default("recursive", Shape::Bool, "false"),
    ],
);
const RENAME_RESOURCE: Shape = Shape::Object(
    "ZFSResourceSnapshotRenameQuery",
    &[
        required("current_name", SOME_TEXT),
        required("new_name", SOME_TEXT),
        default("recursive", Shape::Bool, "false"),
    ],
);
const CLONE: Shape = Shape::Object(
    "PoolSnapshotClone",
    &[
        required("snapshot", SOME_TEXT),
        required("dataset_dst", SOME_TEXT),
        default("dataset_properties", PROPERTIES, "{}"),
    ],
);
const RESOURCES: Shape = Shape::Object(
    "ZFSResourceSnapshotQuery",
    &[
        default("paths", Shape::List(&TEXT), "[]"),
        default("recursive", Shape::Bool, "false"),
        default("properties", Shape::OrNull(&Shape::List(&TEXT)), "[]"),
        default("get_user_properties", Shape::Bool, "false"),
        default("get_source", Shape::Bool, "false"),
        default("get_holds", Shape::Bool, "false"),
        default("min_txg", INT, "0"),
        default("max_txg", INT, "0"),
    ],
);

const DELETE_PARAMS: &[Field] = &[required("id", TEXT), default("options", DELETE, "{}")];
const ROLLBACK_PARAMS: &[Field] = &[required("id", TEXT), default("options", ROLLBACK, "{}")];

pub(super) fn methods(dialect: Dialect) -> Vec<Method> {
    let create = const { &[required("data", Shape::Object("PoolSnapshotCreateWithName", CREATE))] };
    let clone = const { &[required("data", CLONE)] };
    let old_create = const {
        &[required(
            "snapshot_create",
            Shape::Object("snapshot_create", CREATE_25_04),
        )]
    };
    let old_clone = const { &[required("snapshot_clone", CLONE)] };
    match dialect {
        Dialect::V25_04 => vec![
            Method::read("zfs.snapshot.query", SCHEMA_QUERY, run!(query)).checked_by(Checker::Schema),
            Method::read("zfs.snapshot.get_instance", INSTANCE, run!(get_instance)).checked_by(Checker::Schema),
            Method::write("zfs.snapshot.create", old_create, run!(create_old)).checked_by(Checker::Schema),
            Method::write("zfs.snapshot.delete", DELETE_PARAMS, run!(delete)).checked_by(Checker::Schema),
            Method::write("zfs.snapshot.rollback", ROLLBACK_PARAMS, run!(rollback)).checked_by(Checker::Schema),
            Method::write("zfs.snapshot.clone", old_clone, run!(clone_snapshot)).checked_by(Checker::Schema),
        ],
        _ => {
            let mut methods = vec![
                Method::read("pool.snapshot.query", QUERY, run!(query)),
                Method::read("pool.snapshot.get_instance", INSTANCE, run!(get_instance)),
                Method::write("pool.snapshot.create", create, run!(create_snapshot)),
                Method::write("pool.snapshot.delete", DELETE_PARAMS, run!(delete)),
                Method::write("pool.snapshot.rollback", ROLLBACK_PARAMS, run!(rollback)),
                Method::write("pool.snapshot.clone", clone, run!(clone_snapshot)),
            ];
            if dialect == Dialect::V26 {
                let params = const { &[default("data", RESOURCES, "{}")] };
                let rename = const { &[required("id", SOME_TEXT), required("options", RENAME)] };
                let rename_resource = const { &[required("data", RENAME_RESOURCE)] };
                methods.extend([
                    Method::read("zfs.resource.snapshot.query", params, run!(resources)),
                    Method::write("pool.snapshot.rename", rename, run!(rename_nothing)),
                    Method::write(
                        "zfs.resource.snapshot.rename",
                        rename_resource,
                        run!(rename_resource_snapshot),
                    ),
                ]);
            } else {
                let rename = const { &[required("id", SOME_TEXT), required("options", RENAME_25_10)] };
                methods.push(Method::write("pool.snapshot.rename", rename, run!(rename_snapshot)));
            }
            methods
        }
    }
}

/// A property as 25.x tells it.
fn property(value: &str, raw: &str, parsed: Value, source: &str) -> Value {
    json!({ "value": value, "rawvalue": raw, "parsed": parsed, "source": source })
}

fn properties(dialect: Dialect, tree: &Tree, name: &str) -> Map<String, Value> {
    let snapshot = &tree.snapshots[name];
    let created = snapshot.created;
    let mut all = Map::new();
    let moment = match dialect {
        Dialect::V26 => json!(created),
        _ => json!({ "$date": created * 1000 }),
    };
    let source = "NONE";
    all.insert(
        "creation".into(),
        property("Tue Nov  4  5:06 2025", &created.to_string(), moment, source),
    );
    all.insert("used".into(), property("64K", "65536", json!(65536), source));
    all.insert("referenced".into(), property("4M", "4194304", json!(4_194_304), source));
    all.insert(
        "createtxg".into(),
        property(
            &snapshot.txg.to_string(),
            &snapshot.txg.to_string(),
            json!(snapshot.txg),
            source,
        ),
    );
    // 26 tells properties with a colon in their names by another method only.
    if dialect != Dialect::V26 {
        for (key, (value, from)) in tree.user_properties(name) {
            let source = if from.is_some() { "INHERITED" } else { "LOCAL" };
            all.insert(key, property(&value, &value, json!(value), source));
        }
    }
    all
}

fn entry(dialect: Dialect, tree: &Tree, name: &str, only: Option<&[Value]>) -> Value {
    let (dataset, label) = name.split_once('@').expect("a snapshot's name has one");
    let mut properties = properties(dialect, tree, name);
    if let Some(only) = only {
        properties.retain(|key, _| only.iter().any(|wanted| wanted == key));
    }
    json!({
        "id": name,
        "name": name,
        "pool": dataset.split('/').next(),
        "type": "SNAPSHOT",
        "snapshot_name": label,
        "dataset": dataset,
        "createtxg": tree.snapshots[name].txg.to_string(),
        "properties": properties,
    })
}

async fn query(call: Call) -> Outcome {
    let tree = call.server.tree().await;
    let only = call.params[1]["extra"]["properties"]
        .as_array()
        .filter(|only| !only.is_empty());
    let names = tree.snapshots.keys();
    let all = names.map(|name| {
        let mut entry = entry(call.server.dialect, &tree, name, only.map(Vec::as_slice));
        if call.server.dialect == Dialect::V26 {
            entry["holds"] = json!({});
        }
        entry
    });
    filter::query(all.collect(), &call.params[0], &call.params[1])
}

async fn get_instance(call: Call) -> Outcome {
    let tree = call.server.tree().await;
    let all = tree
        .snapshots
        .keys()
        .map(|name| entry(call.server.dialect, &tree, name, None));
    let kind = match call.server.dialect {
        Dialect::V25_04 => "ZFSSnapshot",
        _ => "PoolSnapshot",
    };
    filter::instance(all.collect(), &call.params[0], kind)
}

/// User properties, as ZFS takes them: text, under a name in small letters with a colon.
pub(super) fn user_properties(given: &Value) -> Result<BTreeMap<String, String>, String> {
    let mut taken = BTreeMap::new();
    for (key, value) in given.as_object().into_iter().flatten() {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ":+._-".contains(c);
        if !key.contains(':') || key.len() > 256 || !key.chars().all(good) {
            return Err(format!("invalid property '{key}'"));
        }
        let value = value.as_str().ok_or_else(|| format!("'{key}' must be a string"))?;
        if value.len() > 8191 {
            return Err(format!("'{key}' value is too long"));
        }
        taken.insert(key.clone(), value.to_owned());
    }
    Ok(taken)
}

async fn create_old(mut call: Call) -> Outcome {
    let data = &call.params[0];
    match (data.get("name"), data.get("naming_schema")) {
        (None, None) => {
            let text = "You must specify either name or naming schema";
            return Err(Failure::invalid("snapshot_create.naming_schema", text));
        }
        (None, Some(_)) => return Err(Failure::fault("naming schemas are not simulated")),
        (Some(_), Some(_)) => {
            let text = "You can't specify name and naming schema at the same time";
            return Err(Failure::invalid("snapshot_create.naming_schema", text));
        }
        (Some(_), None) => {}
    }
    if data["recursive"] == true {
        return Err(Failure::fault("recursive snapshots are not simulated"));
    }
    call.params.truncate(1);
    create_snapshot(call).await
}

async fn create_snapshot(call: Call) -> Outcome {
    let data = &call.params[0];
    let (dataset, label) = (
        data["dataset"].as_str().unwrap_or_default(),
        data["name"].as_str().unwrap_or_default(),
    );
    let name = format!("{dataset}@{label}");
    let failed = |text: String| Failure::fault(format!("Failed to snapshot {name}: {text}"));
    let user = user_properties(&data["properties"]).map_err(failed)?;
    let folder = call.server.daemon.snapshots();
    let mut tree = call.server.tree().await;
    let taken = tree.snapshot(dataset, label, user, folder.as_deref()).await;
    taken.map_err(|refused| match (refused, call.server.dialect) {
        (Refused::Exists(_), Dialect::V26) => Failure::One(Fault {
            errno: errno::EEXIST,
            ..Fault::new("pool.snapshot.create", format!("{label} already exists."))
        }),
        (Refused::Exists(_), _) => {
            let text = format!("Failed to snapshot {name}: cannot create snapshot '{name}': dataset already exists");
            Failure::call(errno::EEXIST, text)
        }
        (Refused::Missing(path), Dialect::V26) => Failure::Raised {
            class: "ZFSPathNotFoundException",
            message: format!("'{path}' not found"),
        },
        (Refused::Missing(path), _) => failed(format!("cannot open '{path}': dataset does not exist")),
        (Refused::Name(_), _) => Failure::invalid("snapshot_create.name", "Invalid snapshot name"),
        (other, _) => failed(format!("{other:?}")),
    })?;
    let made = entry(call.server.dialect, &tree, &name, None);
    let collection = match call.server.dialect {
        Dialect::V25_04 => "zfs.snapshot.query",
        _ => "pool.snapshot.query",
    };
    call.server.event(collection, "added", &json!(name), Some(made.clone()));
    Ok(made)
}

async fn delete(call: Call) -> Outcome {
    let name = call.text(0);
    let options = &call.params[1];
    if options["recursive"] == true {
        return Err(Failure::fault("deleting snapshots recursively is not simulated"));
    }
    let mut tree = call.server.tree().await;
    let deleted = tree.delete_snapshot(name, options["defer"] == true).await;
    deleted.map_err(|refused| match (refused, call.server.dialect) {
        (Refused::Missing(_), Dialect::V26) => Failure::missing(format!("'{name}' not found")),
        (Refused::Missing(_), _) => Failure::missing(format!("Snapshot {name} not found")),
        (Refused::Clones(clones), Dialect::V26) => Failure::One(Fault {
            errno: errno::EBUSY,
            ..Fault::new(
                "zfs.resource.snapshot.destroy",
                format!("'{name}' has the following clones: {}", clones.join(",")),
            )
        }),
        (Refused::Clones(clones), _) => Failure::invalid(
            "options.defer",
            format!(
                "Please set this attribute as '{name}' snapshot has dependent clones: {}",
                clones.join(", ")
            ),
        ),
        (other, _) => Failure::fault(format!("{other:?}")),
    })?;
    Ok(json!(true))
}

/// Refuses what would change the disk of a container under its feet. The product does not look; a guest that ran
/// through it would be left with files that are not there.
async fn must_not_run(server: &Server, dataset: &str, what: &str) -> Result<(), Failure> {
    let Some(container) = containers::of_dataset(server, dataset).await else {
        return Ok(());
    };
    if !containers::runs(server, &container).await? {
        return Ok(());
    }
    server.violation(format!("{what} while {container} runs"));
    Err(Failure::fault(format!(
        "Failed to rollback snapshot: {dataset} is in use"
    )))
}

async fn rollback(call: Call) -> Outcome {
    let name = call.text(0);
    let options = &call.params[1];
    let (recursive, clones) = (options["recursive"] == true, options["recursive_clones"] == true);
    let dataset = name.split('@').next().unwrap_or_default();
    must_not_run(&call.server, dataset, &format!("{name} was rolled back to")).await?;
    let done = call.server.tree().await.roll_back(name, recursive, clones).await;
    let v26 = call.server.dialect == Dialect::V26;
    done.map_err(|refused| match refused {
        Refused::Missing(path) if v26 => Failure::Raised {
            class: "ZFSPathNotFoundException",
            message: format!("'{path}' not found"),
        },
        Refused::Missing(path) => Failure::fault(format!(
            "Failed to rollback snapshot: cannot open '{path}': dataset does not exist"
        )),
        Refused::Newer(newer) | Refused::Clones(newer) if v26 => Failure::Raised {
            class: "ValueError",
            message: format!(
                "Cannot rollback: more recent snapshots or bookmarks exist. Please pass `recursive: true` to delete \
                 the following snapshots and bookmarks recursively:\n  {}",
                newer.join("\n  ")
            ),
        },
        Refused::Newer(newer) => Failure::fault(format!(
            "Failed to rollback snapshot: cannot rollback to '{name}': more recent snapshots or bookmarks exist\nuse \
             '-r' to force deletion of the following snapshots and bookmarks:\n{}",
            newer.join("\n")
        )),
        Refused::Clones(clones) => Failure::fault(format!(
            "Failed to rollback snapshot: cannot rollback to '{name}': clones of previous snapshots exist\nuse '-R' \
             to force deletion of the following clones and dependents:\n{}",
            clones.join("\n")
        )),
        other => Failure::fault(format!("{other:?}")),
    })?;
    Ok(Value::Null)
}

/// What both names of `pool.snapshot.rename` are checked for.
fn check_rename(call: &Call) -> Result<(String, String), Failure> {
    let (from, options) = (call.text(0).to_owned(), &call.params[1]);
    let to = options["new_name"].as_str().unwrap_or_default().to_owned();
    if options["force"] != true {
        let text = "No safety checks are performed when renaming ZFS resources; this may break existing usages. If \
                    you understand the risks, please set force and proceed.";
        return Err(Failure::One(Fault::new("pool.snapshot.rename.force", text)));
    }
    if from.split('@').next() != to.split('@').next() {
        let text = "Old and new snapshot must be part of the same ZFS dataset";
        return Err(Failure::One(Fault::new("pool.snapshot.rename.new_name", text)));
    }
    Ok((from, to))
}

async fn rename_snapshot(call: Call) -> Outcome {
    let (from, to) = check_rename(&call)?;
    let done = call.server.tree().await.rename_snapshot(&from, &to);
    done.map_err(|refused| {
        Failure::fault(match refused {
            Refused::Missing(path) => {
                format!("Failed to rename snapshot: cannot open '{path}': dataset does not exist")
            }
            Refused::Exists(path) => {
                format!("Failed to rename snapshot: cannot rename to '{path}': dataset already exists")
            }
            other => format!("Failed to rename snapshot: {other:?}"),
        })
    })?;
    Ok(Value::Null)
}

/// 26.0.0-BETA.3 passes snapshots on to what renames datasets, which takes none.
async fn rename_nothing(call: Call) -> Outcome {
    check_rename(&call)?;
    Err(Failure::One(Fault::new(
        "zfs.resource.rename",
        "Use `zfs.resource.snapshot.rename` to rename snapshots.",
    )))
}

async fn rename_resource_snapshot(call: Call) -> Outcome {
    let data = &call.params[0];
    let name = |key: &str| data[key].as_str().unwrap_or_default();
    let (from, to) = (name("current_name"), name("new_name"));
    let fault = |number: i64, text: String| {
        Err(Failure::One(Fault {
            errno: number,
            ..Fault::new("zfs.resource.snapshot.rename", text)
        }))
    };
    for (key, name) in [("current_name", from), ("new_name", to)] {
        if !name.contains('@') {
            let text = format!("{key} must be a snapshot path (containing '@').");
            return fault(errno::EINVAL, text);
        }
    }
    let dataset = from.split('@').next().unwrap_or_default();
    if to.split('@').next() != Some(dataset) {
        let text = format!("Cannot rename snapshot to a different dataset. Dataset must remain '{dataset}'.");
        return fault(errno::EINVAL, text);
    }
    match call.server.tree().await.rename_snapshot(from, to) {
        Ok(()) => Ok(Value::Null),
        Err(Refused::Missing(path)) => fault(errno::ENOENT, format!("'{path}' not found")),
        Err(Refused::Exists(path)) => fault(errno::EEXIST, format!("'{path}' already exists")),
        Err(other) => fault(errno::EFAULT, format!("{other:?}")),
    }
}

async fn clone_snapshot(call: Call) -> Outcome {
    let data = &call.params[0];
    let (snapshot, to) = (
        data["snapshot"].as_str().unwrap_or_default(),
        data["dataset_dst"].as_str().unwrap_or_default(),
    );
    if data["dataset_properties"]
        .as_object()
        .is_some_and(|properties| !properties.is_empty())
    {
        return Err(Failure::fault("properties of clones are not simulated"));
    }
    let v26 = call.server.dialect == Dialect::V26;
    let mut tree = call.server.tree().await;
    let place = containers::place_of_clone(&call.server, &tree, to);
    let done = tree.clone(snapshot, to, place).await;
    done.map_err(|refused| match refused {
        Refused::Missing(path) if v26 => Failure::Raised {
            class: "ZFSPathNotFoundException",
            message: format!("'{path}' not found"),
        },
        Refused::Exists(path) if v26 => Failure::Raised {
            class: "ZFSPathAlreadyExistsException",
            message: format!("'{path}' already exists"),
        },
        Refused::Missing(path) => Failure::fault(format!(
            "Failed to clone snapshot: cannot open '{path}': dataset does not exist"
        )),
        Refused::Exists(path) => Failure::fault(format!(
            "Failed to clone snapshot: cannot create '{path}': dataset already exists"
        )),
        other => Failure::fault(format!("Failed to clone snapshot: {other:?}")),
    })?;
    Ok(json!(true))
}

/// Snapshots with properties of both kinds, as 26 tells them.
async fn resources(call: Call) -> Outcome {
    let data = &call.params[0];
    let tree = call.server.tree().await;
    let paths: Vec<_> = data["paths"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let below = data["recursive"] == true;
    for path in &paths {
        if !tree.snapshots.contains_key(*path) && !tree.datasets.contains_key(*path) {
            return Err(Failure::One(Fault {
                errno: errno::ENOENT,
                ..Fault::new("zfs.resource.snapshot.query", format!("'{path}' not found"))
            }));
        }
    }
    let wanted = |name: &str| {
        let dataset = name.split('@').next().unwrap_or_default();
        let within = |path: &str| dataset == path || (below && dataset.starts_with(&format!("{path}/")));
        match paths.is_empty() {
            true => below || !dataset.contains('/'),
            false => paths.iter().any(|path| name == *path || within(path)),
        }
    };
    let only = data["properties"].as_array();
    let names = tree.snapshots.keys().filter(|name| wanted(name));
    let all = names.map(|name| {
        let mut entry = entry(
            Dialect::V26,
            &tree,
            name,
            only.filter(|only| !only.is_empty()).map(Vec::as_slice),
        );
        let properties = entry["properties"].as_object().cloned().unwrap_or_default();
        let properties = properties.into_iter().map(|(key, value)| {
            let value = json!({ "raw": value["rawvalue"], "value": value["parsed"], "source": null });
            (key, value)
        });
        let user = tree
            .user_properties(name)
            .into_iter()
            .map(|(key, (value, _))| (key, json!(value)));
        let map = entry.as_object_mut().expect("is one");
        map.shift_remove("id");
        map.insert("createtxg".into(), json!(tree.snapshots[name].txg));
        map.insert("guid".into(), json!(7_000_000 + tree.snapshots[name].txg));
        map.insert("holds".into(), Value::Null);
        map.insert(
            "properties".into(),
            match data["properties"].is_null() {
                true => Value::Null,
                false => properties.collect::<Map<_, _>>().into(),
            },
        );
        map.insert(
            "user_properties".into(),
            match data["get_user_properties"] == true {
                true => user.collect::<Map<_, _>>().into(),
                false => Value::Null,
            },
        );
        entry
    });
    Ok(all.collect())
}
