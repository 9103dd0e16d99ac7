//! `container.*` of 26. Its containers are libvirt's; here they are Incus' as well, which nobody can tell from outside.

use serde_json::{Map, Value, json};

use super::super::check::{Field, INT, SOME_TEXT, Shape, TEXT, default, optional, required};
use super::super::containers::{self, Wanted};
use super::super::failure::{Failure, Fault, errno};
use super::super::filter::{self, NUMBERED, QUERY};
use super::super::server::{Row, Server};
use super::super::tree::POOLS;
use super::{Call, Method, Outcome, run};

/// What the registry offers, and in which version.
const IMAGES: [(&str, &str); 4] = [
    ("alpine:3.20:amd64:default", "alpine/3.20"),
    ("alpine:3.21:amd64:default", "alpine/3.21"),
    ("debian:bookworm:amd64:default", "debian/12"),
    ("ubuntu:noble:amd64:default", "ubuntu/24.04"),
];
const VERSION: &str = "20251101_07:42";

const IDMAP: Shape = Shape::OrNull(&Shape::Tagged(
    "type",
    &[
        ("DEFAULT", &[required("type", TEXT)]),
        (
            "ISOLATED",
            &[
                required("type", TEXT),
                required("slice", Shape::OrNull(&Shape::Int(Some(1), Some(999)))),
            ],
        ),
    ],
));
const TEXTS: Shape = Shape::Map(None, &TEXT);
const BOOLS: Shape = Shape::Map(None, &Shape::Bool);
const POLICY: Shape = Shape::OneOf(&["DEFAULT", "ALLOW", "DENY"]);
const TIME: Shape = Shape::OneOf(&["LOCAL", "UTC"]);
const SECONDS: Shape = Shape::Int(Some(5), Some(300));
const IMAGE: Shape = Shape::Object(
    "ContainerCreateImage",
    &[required("name", TEXT), required("version", TEXT)],
);

macro_rules! fields {
    ($($more:expr),*) => {
        &[
            default("uuid", Shape::OrNull(&TEXT), "null"),
            required("name", SOME_TEXT),
            default("description", TEXT, "\"\""),
            default("cpuset", Shape::OrNull(&TEXT), "null"),
            default("autostart", Shape::Bool, "true"),
            default("time", TIME, "\"LOCAL\""),
            default("shutdown_timeout", SECONDS, "90"),
            default("init", TEXT, "\"/sbin/init\""),
            default("initdir", Shape::OrNull(&TEXT), "null"),
            default("initenv", TEXTS, "{}"),
            default("inituser", Shape::OrNull(&TEXT), "null"),
            default("initgroup", Shape::OrNull(&TEXT), "null"),
            default("idmap", IDMAP, "{\"type\":\"DEFAULT\"}"),
            default("capabilities_policy", POLICY, "\"DEFAULT\""),
            default("capabilities_state", BOOLS, "{}"),
            $($more),*
        ]
    };
}
const CREATE: &[Field] = fields!(default("pool", Shape::OrNull(&TEXT), "null"), required("image", IMAGE));
const CREATE_WITH_DATASET: &[Field] = fields!(required("dataset", TEXT));
const UPDATE: &[Field] = &[
    optional("uuid", Shape::OrNull(&TEXT)),
    optional("name", SOME_TEXT),
    optional("description", TEXT),
    optional("cpuset", Shape::OrNull(&TEXT)),
    optional("autostart", Shape::Bool),
    optional("time", TIME),
    optional("shutdown_timeout", SECONDS),
    optional("init", TEXT),
    optional("initdir", Shape::OrNull(&TEXT)),
    optional("initenv", TEXTS),
    optional("inituser", Shape::OrNull(&TEXT)),
    optional("initgroup", Shape::OrNull(&TEXT)),
    optional("capabilities_policy", POLICY),
    optional("capabilities_state", BOOLS),
];
const STOP: Shape = Shape::Object(
    "ContainerStopOptions",
    &[
        default("force", Shape::Bool, "false"),
        default("force_after_timeout", Shape::Bool, "false"),
    ],
);
const NIC: &[Field] = &[
    required("dtype", TEXT),
    default("trust_guest_rx_filters", Shape::Bool, "false"),
    default("type", Shape::OneOf(&["E1000", "VIRTIO"]), "\"E1000\""),
    default("nic_attach", Shape::OrNull(&TEXT), "null"),
    default("mac", Shape::OrNull(&TEXT), "null"),
];
const DEVICE: Shape = Shape::Object(
    "ContainerDeviceCreate",
    &[
        required("attributes", Shape::Tagged("dtype", &[("NIC", NIC)])),
        required("container", INT),
    ],
);

const ID: &[Field] = &[required("id", INT)];

pub(super) fn methods() -> Vec<Method> {
    let create = const { &[required("container_create", Shape::Object("ContainerCreate", CREATE))] };
    let with_dataset = const {
        &[required(
            "container_create",
            Shape::Object("ContainerCreateWithDataset", CREATE_WITH_DATASET),
        )]
    };
    let update = const {
        &[
            required("id", INT),
            required("container_update", Shape::Object("ContainerUpdate", UPDATE)),
        ]
    };
    let stop = const { &[required("id", INT), default("options", STOP, "{}")] };
    let device = const { &[required("container_device_create", DEVICE)] };
    vec![
        Method::read("container.query", QUERY, run!(query)),
        Method::read("container.get_instance", NUMBERED, run!(get_instance)),
        Method::write("container.create", create, run!(create_container)).job(lock_of_create),
        Method::write("container.create_with_dataset", with_dataset, run!(create_with_dataset)),
        Method::write("container.update", update, run!(update_container)),
        Method::write("container.delete", ID, run!(delete)),
        Method::write("container.start", ID, run!(start)),
        Method::write("container.stop", stop, run!(stop_container)).job(lock_of_stop),
        Method::read("container.pool_choices", &[], run!(pool_choices)),
        Method::read("container.image.query_registry", &[], run!(registry)),
        Method::read("container.device.query", QUERY, run!(devices)),
        Method::write("container.device.create", device, run!(create_device)),
        Method::read("container.device.nic_attach_choices", &[], run!(nic_attach_choices)),
        Method::read("lxc.config", &[], run!(config)),
    ]
}

fn lock_error() -> Failure {
    let text = "Error handling job lock. This is most likely caused by invalid call arguments.";
    Failure::call(errno::EINVAL, text)
}

fn lock_of_create(params: &[Value]) -> Result<String, Failure> {
    let object = params.first().and_then(Value::as_object).ok_or_else(lock_error)?;
    let name = object.get("name").and_then(Value::as_str).unwrap_or("None");
    Ok(format!("container_create:{name}"))
}

fn lock_of_stop(params: &[Value]) -> Result<String, Failure> {
    Ok(format!("container_stop_{}", params.first().ok_or_else(lock_error)?))
}

async fn entries(server: &Server) -> Result<Vec<Value>, Failure> {
    let live = containers::all(server).await?;
    let rows = server.rows().clone();
    let entries = rows.iter().map(|(id, row)| {
        let found = live.iter().find(|instance| instance["name"] == row.name.as_str());
        let running = found.is_some_and(|instance| instance["status"] == "Running");
        let mut entry = json!({ "id": id, "name": row.name, "dataset": row.dataset });
        for (key, value) in row.fields.as_object().into_iter().flatten() {
            entry[key] = value.clone();
        }
        entry["devices"] = json!(row.devices);
        entry["default_network"] = if row.devices.is_empty() {
            json!("truenasbr0")
        } else {
            Value::Null
        };
        entry["status"] = json!({
            "state": if running { "RUNNING" } else { "STOPPED" },
            "pid": found.filter(|_| running).map(|instance| instance["state"]["pid"].clone()),
            "domain_state": if running { json!("RUNNING") } else { Value::Null },
        });
        entry
    });
    Ok(entries.collect())
}

async fn query(call: Call) -> Outcome {
    filter::query(entries(&call.server).await?, &call.params[0], &call.params[1])
}

async fn get_instance(call: Call) -> Outcome {
    filter::instance(entries(&call.server).await?, &call.params[0], "Container")
}

fn row(server: &Server, id: &Value) -> Result<(i64, Row), Failure> {
    let number = id.as_i64().unwrap_or_default();
    let found = server.rows().get(&number).cloned();
    found
        .map(|row| (number, row))
        .ok_or_else(|| Failure::missing(format!("Container {number} does not exist")))
}

/// A name that a host may have, 100 characters at most.
fn good_name(name: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.chars().all(word) && !label.starts_with('-') && !label.ends_with('-')
    };
    let address = name.split('.').count() == 4 && name.chars().all(|c| c.is_ascii_digit() || c == '.');
    name.len() <= 100 && name.split('.').all(label) && !address
}

fn validate(server: &Server, data: &Value, parameter: &str, own: Option<i64>) -> Vec<Fault> {
    let mut faults = Vec::new();
    let name = data["name"].as_str().unwrap_or_default();
    let taken = server
        .rows()
        .iter()
        .any(|(id, row)| row.name == name && Some(*id) != own);
    if taken {
        faults.push(Fault {
            errno: errno::EEXIST,
            ..Fault::new(
                format!("{parameter}.name"),
                "A container with this name already exists.",
            )
        });
    } else if !good_name(name) {
        let text = "Name must be a valid hostname (up to 100 characters total): 1-63 characters per label, only \
                    letters, digits, and hyphens within each label, labels separated by dots, and must not be an \
                    IPv4 address.";
        faults.push(Fault::new(format!("{parameter}.name"), text));
    }
    let cpuset = data["cpuset"].as_str().unwrap_or("0");
    if !cpuset.chars().all(|c| c.is_ascii_digit() || ",-^".contains(c)) {
        let text = format!("Invalid cpuset format: {cpuset}");
        faults.push(Fault::new(format!("{parameter}.cpuset"), text));
    }
    faults
}

/// The daemon's settings for what a container is given.
fn settings(data: &Value) -> Map<String, Value> {
    let mut config = Map::new();
    for (key, value) in data["initenv"].as_object().into_iter().flatten() {
        config.insert(format!("environment.{key}"), value.clone());
    }
    if let Some(cpuset) = data["cpuset"].as_str() {
        config.insert("limits.cpu".to_owned(), json!(cpuset));
    }
    config
}

/// Writes a container down. Gives its number.
fn insert(server: &Server, data: &Value, dataset: &str) -> i64 {
    let mut fields = data.as_object().cloned().unwrap_or_default();
    for key in ["pool", "image", "dataset", "name"] {
        fields.shift_remove(key);
    }
    if fields["uuid"].is_null() {
        fields.insert("uuid".to_owned(), json!(server.unique()));
    }
    let row = Row {
        name: data["name"].as_str().unwrap_or_default().to_owned(),
        dataset: dataset.to_owned(),
        fields: fields.into(),
        devices: Vec::new(),
    };
    let number = i64::try_from(server.next_number()).expect("is small");
    server.rows().insert(number, row);
    number
}

async fn told(server: &Server, number: i64) -> Outcome {
    filter::instance(entries(server).await?, &json!(number), "Container")
}

async fn create_container(call: Call) -> Outcome {
    let data = &call.params[0];
    let server = &call.server;
    let pool = data["pool"].as_str().unwrap_or(POOLS[0]);
    let mut faults = validate(server, data, "container_create", None);
    if !POOLS.contains(&pool) {
        faults.push(Fault::new("container_create.pool", "Pool not found."));
    }
    if !faults.is_empty() {
        return Err(Failure::Invalid(faults));
    }
    let wanted = &data["image"];
    // The job that fetches the image fails, and this one with what that one said.
    let refused = |field: &str, text: &str| Failure::fault(format!("[EINVAL] {field}: {text}\n"));
    let Some((_, image)) = IMAGES.iter().find(|(name, _)| wanted["name"] == *name) else {
        return Err(refused("name", "Image does not exist in the registry."));
    };
    if wanted["version"] != VERSION {
        return Err(refused("version", "Version does not exist in the registry."));
    }
    let name = data["name"].as_str().unwrap_or_default();
    let dataset = server.tree().await.of_container(pool, name);
    if server.tree().await.datasets.contains_key(&dataset) {
        // What a container left behind whose snapshots were not deleted first.
        return Err(Failure::Raised {
            class: "ZFSPathAlreadyExistsException",
            message: format!("'{dataset}' already exists"),
        });
    }
    make(server, data, image, pool, &dataset).await
}

async fn make(server: &Server, data: &Value, image: &str, pool: &str, dataset: &str) -> Outcome {
    let wanted = Wanted {
        name: data["name"].as_str().unwrap_or_default(),
        image,
        pool,
        config: settings(data),
        nic: None,
    };
    containers::create(server, &wanted).await?;
    let number = insert(server, data, dataset);
    told(server, number).await
}

async fn create_with_dataset(call: Call) -> Outcome {
    let data = &call.params[0];
    let server = &call.server;
    let faults = validate(server, data, "container_create", None);
    if !faults.is_empty() {
        return Err(Failure::Invalid(faults));
    }
    let dataset = data["dataset"].as_str().unwrap_or_default();
    let name = data["name"].as_str().unwrap_or_default();
    let pool = dataset.split('/').next().unwrap_or_default();
    if server.tree().await.of_container(pool, name) != dataset {
        // Nobody checks it, and the container would start from a folder that is not there.
        server.violation(format!(
            "{name} was made around {dataset}, which is not where its root is looked for"
        ));
        return Err(Failure::fault(format!("Dataset '{dataset}' is not the container's")));
    }
    let Some(held) = server.tree().await.datasets.get(dataset).cloned() else {
        server.violation(format!("{name} was made around {dataset}, which does not exist"));
        return Err(Failure::fault(format!("Dataset '{dataset}' not found")));
    };
    // The daemon makes a container from an image, and then gets the disk that was made before.
    let wanted = Wanted {
        name,
        image: IMAGES[0].1,
        pool,
        config: settings(data),
        nic: None,
    };
    containers::create(server, &wanted).await?;
    containers::adopt_disk(server, name, dataset, held).await?;
    let number = insert(server, data, dataset);
    told(server, number).await
}

async fn update_container(call: Call) -> Outcome {
    let (number, old) = row(&call.server, &call.params[0])?;
    let data = &call.params[1];
    let mut new = json!({ "name": old.name });
    for source in [&old.fields, data] {
        for (key, value) in source.as_object().into_iter().flatten() {
            new[key] = value.clone();
        }
    }
    let faults = validate(&call.server, &new, "container_update", Some(number));
    if !faults.is_empty() {
        return Err(Failure::Invalid(faults));
    }
    if new["name"] != old.name.as_str() {
        return Err(Failure::fault("renaming containers is not simulated"));
    }
    containers::replace_settings(&call.server, &old.name, settings(&new)).await?;
    new.as_object_mut().expect("is one").shift_remove("name");
    let row = Row { fields: new, ..old };
    call.server.rows().insert(number, row);
    told(&call.server, number).await
}

async fn delete(call: Call) -> Outcome {
    let (number, old) = row(&call.server, &call.params[0])?;
    if containers::runs(&call.server, &old.name).await? {
        // What becomes of it nobody says; a caller who cares stops it first.
        call.server.violation(format!("{} was deleted while it ran", old.name));
        return Err(Failure::fault(format!(
            "Failed to unmount '{}': pool or dataset is busy",
            old.dataset
        )));
    }
    call.server.rows().remove(&number);
    let has_snapshots = !call.server.tree().await.snapshots_of(&old.dataset).is_empty();
    containers::delete_and_leave(&call.server, &old.name, &old.dataset).await?;
    if has_snapshots {
        // The container is gone by then, and its dataset stays.
        let text = format!("'{}' has snapshots. Set recursive=True to remove them.", old.dataset);
        return Err(Failure::One(Fault {
            errno: errno::ENOTEMPTY,
            ..Fault::new("zfs.resource.destroy", text)
        }));
    }
    Ok(Value::Null)
}

async fn start(call: Call) -> Outcome {
    let (_, row) = row(&call.server, &call.params[0])?;
    if !call.server.tree().await.datasets.contains_key(&row.dataset) {
        return Err(Failure::call(
            errno::ENOTDIR,
            format!("Dataset '{}' not found", row.dataset),
        ));
    }
    containers::name_host(&call.server, &row.name)?;
    containers::start(&call.server, &row.name).await?;
    Ok(Value::Null)
}

async fn stop_container(call: Call) -> Outcome {
    let (_, row) = row(&call.server, &call.params[0])?;
    let options = &call.params[1];
    if options["force"] == true {
        containers::stop(&call.server, &row.name, -1, true).await?;
        return Ok(Value::Null);
    }
    let seconds = row.fields["shutdown_timeout"].as_i64().unwrap_or(90);
    let stopped = containers::stop(&call.server, &row.name, seconds, false).await;
    let still = stopped.is_err() && containers::runs(&call.server, &row.name).await?;
    match (still, options["force_after_timeout"] == true) {
        (true, true) => containers::stop(&call.server, &row.name, -1, true).await?,
        // It goes on, and nobody says so.
        (true, false) => {}
        (false, _) => stopped?,
    }
    Ok(Value::Null)
}

async fn pool_choices(_: Call) -> Outcome {
    Ok(POOLS
        .iter()
        .map(|pool| ((*pool).to_owned(), json!(pool)))
        .collect::<Map<_, _>>()
        .into())
}

async fn registry(_: Call) -> Outcome {
    let images = IMAGES
        .iter()
        .map(|(name, _)| json!({ "name": name, "versions": [{ "version": VERSION }] }));
    Ok(images.collect())
}

async fn config(_: Call) -> Outcome {
    Ok(json!({
        "id": 1,
        "preferred_pool": POOLS[0],
        "bridge": null,
        "v4_network": "172.200.0.0/24",
        "v6_network": null,
    }))
}

async fn devices(call: Call) -> Outcome {
    let rows = call.server.rows().clone();
    let all = rows.values().flat_map(|row| row.devices.clone()).collect();
    filter::query(all, &call.params[0], &call.params[1])
}

async fn create_device(call: Call) -> Outcome {
    let data = &call.params[0];
    row(&call.server, &data["container"])?;
    let attach = data["attributes"]["nic_attach"].as_str().unwrap_or("truenasbr0");
    if !["truenasbr0", "br0", "enp1s0", "enp2s0"].contains(&attach) {
        let text = "Not a valid choice. The NIC is not available for use.";
        return Err(Failure::invalid("attributes.nic_attach", text));
    }
    let number = data["container"].as_i64().unwrap_or_default();
    let device = json!({
        "id": call.server.next_number(), "attributes": data["attributes"], "container": number,
    });
    call.server
        .rows()
        .entry(number)
        .and_modify(|row| row.devices.push(device.clone()));
    Ok(device)
}

async fn nic_attach_choices(_: Call) -> Outcome {
    Ok(json!({ "BRIDGE": ["truenasbr0", "br0"], "MACVLAN": ["enp1s0", "enp2s0"] }))
}
