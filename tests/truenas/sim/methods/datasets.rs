//! `pool.dataset.*`, and the private `zfs.dataset.*` of 25.x.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::Dialect;
use super::super::check::{Checker, Field, INT, SOME_TEXT, Shape, TEXT, default, optional, required};
use super::super::containers;
use super::super::failure::{Failure, Fault, errno};
use super::super::filter::{self, INSTANCE, QUERY, SCHEMA_QUERY};
use super::super::tree::{Refused, Tree, good_name};
use super::snapshots::user_properties;
use super::{Call, Method, Outcome, run};

const PROPERTY: Shape = Shape::Object(
    "PoolDatasetCreateUserProperty",
    &[required("key", Shape::Ruled(key)), required("value", TEXT)],
);
const PROPERTY_UPDATE: Shape = Shape::Object(
    "PoolDatasetUpdateUserProperty",
    &[
        required("key", Shape::Ruled(key)),
        optional("value", TEXT),
        optional("remove", Shape::Bool),
    ],
);
const SWITCH: Shape = Shape::OneOf(&["ON", "OFF", "INHERIT"]);

/// What a caller may want of a dataset that only carries properties; more of what the product takes is refused.
const CREATE: &[Field] = &[
    required("name", SOME_TEXT),
    default("type", Shape::OneOf(&["FILESYSTEM"]), "\"FILESYSTEM\""),
    optional("comments", TEXT),
    optional("compression", TEXT),
    optional("exec", SWITCH),
    optional("atime", SWITCH),
    optional("readonly", SWITCH),
    optional("managedby", SOME_TEXT),
    optional("quota", Shape::OrNull(&INT)),
    default("share_type", Shape::OneOf(&["GENERIC"]), "\"GENERIC\""),
    default("encryption", Shape::Bool, "false"),
    default("inherit_encryption", Shape::Bool, "true"),
    default("user_properties", Shape::List(&PROPERTY), "[]"),
    default("create_ancestors", Shape::Bool, "false"),
];
const UPDATE: &[Field] = &[
    optional("comments", TEXT),
    optional("compression", TEXT),
    optional("exec", SWITCH),
    optional("atime", SWITCH),
    optional("readonly", SWITCH),
    optional("managedby", SOME_TEXT),
    optional("quota", Shape::OrNull(&INT)),
    optional("user_properties", Shape::List(&PROPERTY)),
    optional("create_ancestors", Shape::Bool),
    optional("user_properties_update", Shape::List(&PROPERTY_UPDATE)),
];
const DELETE: Shape = Shape::Object(
    "PoolDatasetDeleteOptions",
    &[
        default("recursive", Shape::Bool, "false"),
        default("force", Shape::Bool, "false"),
    ],
);
const RENAME: Shape = Shape::Object(
    "PoolDatasetRenameOptions",
    &[
        required("new_name", SOME_TEXT),
        default("recursive", Shape::Bool, "false"),
        default("force", Shape::Bool, "false"),
    ],
);
const DESTROY: Shape = Shape::Object(
    "options",
    &[
        default("force", Shape::Bool, "false"),
        default("recursive", Shape::Bool, "false"),
        default("recursively_remove_dependents", Shape::Bool, "false"),
    ],
);
const RENAME_PLAIN: Shape = Shape::Object(
    "options",
    &[
        required("new_name", SOME_TEXT),
        default("recursive", Shape::Bool, "false"),
    ],
);

fn key(key: &str) -> Option<&'static str> {
    (!key.contains(':')).then_some("String should match pattern '.*:.*'")
}

pub(super) fn methods(dialect: Dialect) -> Vec<Method> {
    let create = const { &[required("data", Shape::Object("PoolDatasetCreateFilesystem", CREATE))] };
    let update = const {
        &[
            required("id", TEXT),
            required("data", Shape::Object("PoolDatasetUpdate", UPDATE)),
        ]
    };
    let delete = const { &[required("id", TEXT), default("options", DELETE, "{}")] };
    let old_create = const {
        &[required(
            "pool_dataset_create",
            Shape::Object("pool_dataset_create", CREATE),
        )]
    };
    let old_update = const {
        &[
            required("id", TEXT),
            required("pool_dataset_update", Shape::Object("pool_dataset_update", UPDATE)),
        ]
    };
    let old_delete = const { &[required("id", TEXT), default("dataset_delete", DELETE, "{}")] };
    let rename = const { &[required("id", SOME_TEXT), required("data", RENAME)] };
    let destroy = const { &[required("id", TEXT), default("options", DESTROY, "{}")] };
    let rename_plain = const { &[required("dataset", TEXT), required("options", RENAME_PLAIN)] };
    let id = const { &[required("id", TEXT)] };
    let mut all = match dialect {
        Dialect::V25_04 => vec![
            Method::read("pool.dataset.query", SCHEMA_QUERY, run!(query)).checked_by(Checker::Schema),
            Method::read("pool.dataset.get_instance", INSTANCE, run!(get_instance)).checked_by(Checker::Schema),
            Method::write("pool.dataset.create", old_create, run!(create_dataset)).checked_by(Checker::Schema),
            Method::write("pool.dataset.update", old_update, run!(update_dataset)).checked_by(Checker::Schema),
            Method::write("pool.dataset.delete", old_delete, run!(delete_dataset)).checked_by(Checker::Schema),
        ],
        _ => vec![
            Method::read("pool.dataset.query", QUERY, run!(query)),
            Method::read("pool.dataset.get_instance", INSTANCE, run!(get_instance)),
            Method::write("pool.dataset.create", create, run!(create_dataset)),
            Method::write("pool.dataset.update", update, run!(update_dataset)),
            Method::write("pool.dataset.delete", delete, run!(delete_dataset)),
            Method::write("pool.dataset.rename", rename, run!(rename_dataset)),
        ],
    };
    all.push(Method::write("pool.dataset.promote", id, run!(promote)));
    if dialect < Dialect::V26 {
        all.extend([
            Method::read("zfs.dataset.query", SCHEMA_QUERY, run!(query_all)).checked_by(Checker::Schema),
            Method::write("zfs.dataset.delete", destroy, run!(destroy_dataset)).checked_by(Checker::Schema),
            Method::write("zfs.dataset.rename", rename_plain, run!(rename_plainly)).checked_by(Checker::Schema),
            Method::write("zfs.dataset.promote", id, run!(promote)).checked_by(Checker::Schema),
        ]);
    }
    all
}

/// Whether the product keeps its users away from a dataset.
fn internal(dialect: Dialect, name: &str) -> bool {
    let hidden = ["/.system", "/ix-applications/", "/ix-apps"];
    hidden.iter().any(|part| name.contains(part)) || (dialect < Dialect::V26 && name.contains("/.ix-virt"))
}

fn entry(dialect: Dialect, tree: &Tree, name: &str, extra: &Value) -> Value {
    let dataset = &tree.datasets[name];
    let property = |value: &str, parsed: Value| json!({ "parsed": parsed, "rawvalue": value, "value": value, "source": "DEFAULT", "source_info": null });
    let created = match dialect {
        Dialect::V26 => json!(dataset.created),
        _ => json!({ "$date": dataset.created * 1000 }),
    };
    let children = match extra["retrieve_children"] == false {
        true => json!([]),
        false => {
            let direct = tree.below(name).into_iter();
            let direct = direct.filter(|child| !child[name.len() + 1..].contains('/') && !internal(dialect, child));
            direct.map(|child| entry(dialect, tree, &child, extra)).collect()
        }
    };
    let mut entry = json!({
        "id": name,
        "type": "FILESYSTEM",
        "name": name,
        "pool": name.split('/').next(),
        "encrypted": false,
        "encryption_root": null,
        "key_loaded": false,
        "locked": false,
        "children": children,
        "mountpoint": tree.mountpoint(name),
    });
    let told: Map<String, Value> = [
        ("creation", property(&dataset.created.to_string(), created)),
        (
            "origin",
            property(
                dataset.origin.as_deref().unwrap_or_default(),
                json!(dataset.origin.as_deref().unwrap_or_default()),
            ),
        ),
        ("used", property("196608", json!(196_608))),
        ("available", property("1099511627776", json!(1_u64 << 40))),
        ("readonly", property("off", json!(false))),
        ("quota", property("0", Value::Null)),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let only = extra["properties"].as_array();
    for (key, value) in told {
        if only.is_none_or(|only| only.iter().any(|wanted| *wanted == key)) {
            entry[key] = value;
        }
    }
    if extra["retrieve_user_props"] != false {
        let user = tree.user_properties(name).into_iter().map(|(key, (value, from))| {
            let (source, info) = match (&from, dialect) {
                // 26 says so of every one, and says itself that it may not be true.
                (_, Dialect::V26) | (None, _) => ("LOCAL", None),
                (Some(from), _) => ("INHERITED", Some(from.clone())),
            };
            let value =
                json!({ "parsed": value, "rawvalue": value, "value": value, "source": source, "source_info": info });
            (key, value)
        });
        entry["user_properties"] = user.collect::<Map<_, _>>().into();
    }
    entry
}

fn entries(dialect: Dialect, tree: &Tree, extra: &Value) -> Vec<Value> {
    let names = tree.datasets.keys().filter(|name| !internal(dialect, name));
    names.map(|name| entry(dialect, tree, name, extra)).collect()
}

async fn query(call: Call) -> Outcome {
    let tree = call.server.tree().await;
    let all = entries(call.server.dialect, &tree, &call.params[1]["extra"]);
    filter::query(all, &call.params[0], &call.params[1])
}

/// The private query, which hides nothing, and tells properties under one key.
async fn query_all(call: Call) -> Outcome {
    let tree = call.server.tree().await;
    let dialect = call.server.dialect;
    let extra = json!({ "retrieve_children": false });
    let all = tree.datasets.keys().map(|name| {
        let full = entry(dialect, &tree, name, &extra);
        let mut properties = full["user_properties"].as_object().cloned().unwrap_or_default();
        for key in ["creation", "origin", "used", "available", "readonly", "quota"] {
            properties.insert(key.to_owned(), full[key].clone());
        }
        json!({
            "id": name, "name": name, "pool": full["pool"], "type": "FILESYSTEM", "properties": properties,
            "mountpoint": full["mountpoint"], "encrypted": false, "encryption_root": null, "key_loaded": false, "children": [],
        })
    });
    filter::query(all.collect(), &call.params[0], &call.params[1])
}

async fn get_instance(call: Call) -> Outcome {
    let tree = call.server.tree().await;
    let all = entries(call.server.dialect, &tree, &call.params[1]["extra"]);
    filter::instance(all, &call.params[0], "PoolDataset")
}

/// Properties from the list that a caller gives.
fn listed(list: &Value) -> Result<BTreeMap<String, String>, String> {
    let pairs = list.as_array().into_iter().flatten();
    let pairs = pairs.map(|pair| {
        (
            pair["key"].as_str().unwrap_or_default().to_owned(),
            pair["value"].clone(),
        )
    });
    user_properties(&pairs.collect::<Map<_, _>>().into())
}

async fn create_dataset(call: Call) -> Outcome {
    let data = &call.params[0];
    let name = data["name"].as_str().unwrap_or_default();
    let fault = |text: String| Failure::invalid("pool_dataset_create.name", text);
    let Some((parent, _)) = name.rsplit_once('/') else {
        return Err(fault("You need a full name, e.g. pool/newdataset".to_owned()));
    };
    if !good_name(name) {
        return Err(fault("Invalid dataset name".to_owned()));
    }
    if name.len() > 200 {
        return Err(fault(
            "Dataset name length should be less than or equal to 200".to_owned(),
        ));
    }
    if internal(call.server.dialect, name) {
        let text = format!("'{name}' is using system internal managed dataset. Please specify a different parent.");
        return Err(fault(text));
    }
    let user =
        listed(&data["user_properties"]).map_err(|text| Failure::fault(format!("Failed to create dataset: {text}")))?;
    let mut tree = call.server.tree().await;
    if !tree.datasets.contains_key(parent) && data["create_ancestors"] != true {
        return Err(fault(match call.server.dialect {
            Dialect::V26 => format!("Parent dataset ({parent}) does not exist."),
            _ => "Parent dataset does not exist for specified name".to_owned(),
        }));
    }
    if let Some(there) = tree.datasets.get(name) {
        // Whoever comes at the same moment as the one that succeeds finds no folder yet, and ZFS itself refuses.
        if there.made.elapsed().as_millis() < 30 {
            return Err(Failure::fault(match call.server.dialect {
                Dialect::V26 => {
                    format!("Failed to create dataset {name}: cannot create '{name}': dataset already exists")
                }
                _ => format!("Failed to create dataset: cannot create '{name}': dataset already exists"),
            }));
        }
        return Err(fault(format!("Path /mnt/{name} already exists")));
    }
    let mut end = 0;
    for part in parent.split('/') {
        end += part.len();
        if !tree.datasets.contains_key(&name[..end]) {
            let made = tree.make(&name[..end], BTreeMap::new());
            made.map_err(|_| {
                fault("Please specify a pool which exists for the dataset/volume to be created".to_owned())
            })?;
        }
        end += 1;
    }
    tree.make(name, user)
        .map_err(|refused| Failure::fault(format!("Failed to create dataset: {refused:?}")))?;
    Ok(entry(call.server.dialect, &tree, name, &Value::Null))
}

async fn update_dataset(call: Call) -> Outcome {
    let name = call.text(0);
    let data = &call.params[1];
    let dialect = call.server.dialect;
    let mut tree = call.server.tree().await;
    if !tree.datasets.contains_key(name) || internal(dialect, name) {
        return Err(Failure::Invalid(vec![Fault {
            errno: errno::ENOENT,
            ..Fault::new("id", format!("{name} does not exist"))
        }]));
    }
    let changes = data["user_properties_update"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let whole = data["user_properties"].as_array().filter(|whole| !whole.is_empty());
    let mut faults = Vec::new();
    if whole.is_some() && !changes.is_empty() {
        let text = "Should not be specified when \"user_properties\" are explicitly specified";
        faults.push(Fault::new("pool_dataset_update.user_properties_update", text));
    }
    for (index, change) in changes.iter().enumerate() {
        let at = format!("pool_dataset_update.user_properties_update.{index}");
        match (change.get("value"), change["remove"] == true) {
            (Some(_), true) => faults.push(Fault::new(
                format!("{at}.remove"),
                "When \"value\" is specified, this cannot be set",
            )),
            (None, false) => faults.push(Fault::new(
                format!("{at}.value"),
                "Either \"value\" or \"remove\" must be specified",
            )),
            _ => {}
        }
    }
    if !faults.is_empty() {
        return Err(Failure::Invalid(faults));
    }
    let failed = |text: String| Failure::fault(format!("Failed to update dataset: {text}"));
    let set: Value = changes
        .iter()
        .filter(|change| change.get("value").is_some())
        .cloned()
        .collect();
    let set = listed(&set).map_err(failed)?;
    let whole = whole.map(|whole| listed(&json!(whole))).transpose().map_err(failed)?;
    let removed = changes
        .iter()
        .filter(|change| change["remove"] == true)
        .filter_map(|change| change["key"].as_str());
    let removed: Vec<_> = removed.collect();
    let known = tree.user_properties(name);
    if let Some(key) = removed
        .iter()
        .find(|key| !known.contains_key(**key) && dialect < Dialect::V26)
    {
        let text = "Property does not exist and cannot be inherited";
        return Err(Failure::invalid(format!("properties.{key}"), text));
    }
    let user = &mut tree.datasets.get_mut(name).expect("was just found").user;
    if let Some(whole) = whole {
        *user = whole;
    }
    user.retain(|key, _| !removed.contains(&key.as_str()));
    user.extend(set);
    Ok(entry(dialect, &tree, name, &Value::Null))
}

/// How ZFS words that something cannot be destroyed.
fn destroyed(name: &str, done: Result<(), Refused>) -> Outcome {
    let failed = |number: i64, text: String| Err(Failure::call(number, format!("Failed to delete dataset: {text}")));
    match done {
        Ok(()) => Ok(json!(true)),
        Err(Refused::Missing(path)) => failed(errno::EFAULT, format!("cannot open '{path}': dataset does not exist")),
        Err(Refused::Children(children)) => failed(
            errno::EFAULT,
            format!(
                "cannot destroy '{name}': filesystem has children\nuse '-r' to destroy the following datasets:\n{}",
                children.join("\n")
            ),
        ),
        Err(Refused::Clones(clones)) => failed(
            errno::EFAULT,
            format!(
                "cannot destroy '{name}': filesystem has dependent clones\nuse '-R' to destroy the following \
                 datasets:\n{}",
                clones.join("\n")
            ),
        ),
        Err(other) => failed(errno::EFAULT, format!("{other:?}")),
    }
}

/// A dataset that a running container has mounted cannot go.
async fn idle(call: &Call, name: &str) -> Result<(), Failure> {
    let Some(container) = containers::of_dataset(&call.server, name).await else {
        return Ok(());
    };
    if containers::runs(&call.server, &container).await? {
        let text = format!("Failed to delete dataset: cannot destroy '{name}': dataset is busy");
        return Err(Failure::call(errno::EBUSY, text));
    }
    Ok(())
}

async fn delete_dataset(call: Call) -> Outcome {
    let name = call.text(0);
    let recursive = call.params[1]["recursive"] == true;
    idle(&call, name).await?;
    let mut tree = call.server.tree().await;
    if !tree.datasets.contains_key(name) || internal(call.server.dialect, name) {
        return Err(Failure::missing(format!("PoolDataset {name} does not exist")));
    }
    if !recursive && !tree.below(name).is_empty() {
        let text = format!("Failed to delete dataset: cannot destroy '{name}': filesystem has children");
        return Err(Failure::call(errno::ENOTEMPTY, text));
    }
    if call.server.dialect == Dialect::V26 && !recursive && !tree.snapshots_of(name).is_empty() {
        return Err(Failure::One(Fault {
            errno: errno::ENOTEMPTY,
            ..Fault::new(
                "zfs.resource.destroy",
                format!("'{name}' has snapshots. Set recursive=True to remove them."),
            )
        }));
    }
    if call.server.stays(name) {
        let busy = format!("cannot unmount '/mnt/{name}': pool or dataset is busy");
        return match call.server.dialect {
            // What ZFS says is not looked at.
            Dialect::V26 => Ok(json!(true)),
            _ => Err(Failure::fault(format!("Failed to delete dataset: {busy}"))),
        };
    }
    let done = tree.destroy(name, recursive).await;
    if call.server.dialect == Dialect::V26 {
        if let (Err(Refused::Clones(clones)), true) = (&done, recursive) {
            // 26 destroys these as well.
            call.server
                .violation(format!("{name} was destroyed with its clones, {}", clones.join(", ")));
        }
        // What went wrong here is not looked at.
        return Ok(json!(true));
    }
    destroyed(name, done)
}

async fn destroy_dataset(call: Call) -> Outcome {
    let name = call.text(0);
    let options = &call.params[1];
    if options["recursively_remove_dependents"] == true {
        return Err(Failure::fault("destroying dependents is not simulated"));
    }
    idle(&call, name).await?;
    let done = call
        .server
        .tree()
        .await
        .destroy(name, options["recursive"] == true)
        .await;
    destroyed(name, done)
}

async fn rename_dataset(call: Call) -> Outcome {
    if call.params[1]["force"] != true {
        let text = "No safety checks are performed when renaming ZFS resources; this may break existing usages. If \
                    you understand the risks, please set force and proceed.";
        return Err(Failure::One(Fault::new("pool.dataset.rename.force", text)));
    }
    rename_plainly(call).await
}

async fn rename_plainly(call: Call) -> Outcome {
    let to = call.params[1]["new_name"].as_str().unwrap_or_default();
    let name = call.text(0);
    idle(&call, name).await?;
    let mut tree = call.server.tree().await;
    tree.rename(name, to).map_err(|refused| match refused {
        Refused::Missing(_) => Failure::call(errno::ENOENT, format!("Dataset '{name}' not found")),
        Refused::Exists(_) => Failure::fault(format!(
            "Failed to rename dataset: cannot rename to '{to}': dataset already exists"
        )),
        other => Failure::fault(format!("Failed to rename dataset: {other:?}")),
    })?;
    // Whose disk it is follows from its name.
    let place = containers::place_of_clone(&call.server, &tree, to);
    if let (Some(dataset), Some(place)) = (tree.datasets.get_mut(to), place)
        && let Some(disk) = dataset.disk.as_mut()
    {
        let moved = std::fs::rename(&disk, &place);
        moved.map_err(|error| Failure::fault(format!("Failed to rename dataset: {error}")))?;
        *disk = place;
    }
    Ok(Value::Null)
}

async fn promote(call: Call) -> Outcome {
    let name = call.text(0);
    let mut tree = call.server.tree().await;
    let Some(dataset) = tree.datasets.get(name) else {
        return Err(Failure::call(
            errno::ENOENT,
            format!("Dataset \"{name}\" does not exist."),
        ));
    };
    if dataset.origin.is_none() {
        // EBADMSG.
        return Err(Failure::call(74, "Only cloned datasets can be promoted."));
    }
    let done = tree.promote(name);
    done.map_err(|refused| Failure::fault(format!("Failed to promote dataset: {refused:?}")))?;
    Ok(Value::Null)
}
