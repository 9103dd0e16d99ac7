//! `virt.*` of 25.04 and 25.10: containers in Incus.

use serde_json::{Value, json};

use super::super::Dialect;
use super::super::check::{Field, INT, SOME_TEXT, Shape, TEXT, default, optional, required};
use super::super::containers::{self, Wanted};
use super::super::failure::{Failure, Fault};
use super::super::filter::{self, INSTANCE, QUERY};
use super::super::tree::POOLS;
use super::system::{CORES, MEMORY};
use super::{Call, Method, Outcome, run};

const NAME: Shape = Shape::Text(1, 200);
const MEMORY_SIZE: Shape = Shape::OrNull(&INT);
const ENVIRONMENT: Shape = Shape::OrNull(&Shape::Map(Some(environment_key), &Shape::Ruled(environment_value)));

const DEVICE: [Field; 3] = [
    default("name", Shape::OrNull(&SOME_TEXT), "null"),
    default("description", Shape::OrNull(&SOME_TEXT), "null"),
    default("readonly", Shape::Bool, "false"),
];
const PROTOCOL: Shape = Shape::OneOf(&["UDP", "TCP"]);
const PORT: Shape = Shape::Int(Some(1), Some(65535));
const NIC_TYPE: Shape = Shape::OrNull(&Shape::OneOf(&["BRIDGED", "MACVLAN"]));

const fn tag(name: &'static [&'static str]) -> Field {
    required("dev_type", Shape::OneOf(name))
}

const DISK: &[Field] = &[
    DEVICE[0],
    DEVICE[1],
    DEVICE[2],
    tag(&["DISK"]),
    default("source", Shape::OrNull(&SOME_TEXT), "null"),
    default("destination", Shape::OrNull(&TEXT), "null"),
    default("boot_priority", Shape::OrNull(&Shape::Int(Some(0), None)), "null"),
    default(
        "io_bus",
        Shape::OrNull(&Shape::OneOf(&["NVME", "VIRTIO-BLK", "VIRTIO-SCSI"])),
        "null",
    ),
    default("storage_pool", Shape::OrNull(&SOME_TEXT), "null"),
];
const NIC: &[Field] = &[
    DEVICE[0],
    DEVICE[1],
    DEVICE[2],
    tag(&["NIC"]),
    default("network", Shape::OrNull(&SOME_TEXT), "null"),
    default("nic_type", NIC_TYPE, "null"),
    default("parent", Shape::OrNull(&SOME_TEXT), "null"),
];
const NIC_25_10: &[Field] = &[
    DEVICE[0],
    DEVICE[1],
    DEVICE[2],
    tag(&["NIC"]),
    default("network", Shape::OrNull(&SOME_TEXT), "null"),
    default("nic_type", NIC_TYPE, "null"),
    default("parent", Shape::OrNull(&SOME_TEXT), "null"),
    default("mac", Shape::OrNull(&TEXT), "null"),
];
const PROXY: &[Field] = &[
    DEVICE[0],
    DEVICE[1],
    DEVICE[2],
    tag(&["PROXY"]),
    required("source_proto", PROTOCOL),
    required("source_port", PORT),
    required("dest_proto", PROTOCOL),
    required("dest_port", PORT),
];

const DEVICES_25_04: Shape = Shape::Tagged("dev_type", &[("DISK", DISK), ("PROXY", PROXY), ("NIC", NIC)]);
const DEVICES_25_10: Shape = Shape::Tagged("dev_type", &[("DISK", DISK), ("PROXY", PROXY), ("NIC", NIC_25_10)]);

const CREATE_25_04: &[Field] = &[
    required("name", NAME),
    default("iso_volume", Shape::OrNull(&SOME_TEXT), "null"),
    default("source_type", Shape::OneOf(&["IMAGE"]), "\"IMAGE\""),
    default("storage_pool", Shape::OrNull(&SOME_TEXT), "null"),
    required("image", NAME),
    default("remote", Shape::OneOf(&["LINUX_CONTAINERS"]), "\"LINUX_CONTAINERS\""),
    default("instance_type", Shape::OneOf(&["CONTAINER"]), "\"CONTAINER\""),
    default("environment", ENVIRONMENT, "null"),
    default("autostart", Shape::OrNull(&Shape::Bool), "true"),
    default("cpu", Shape::OrNull(&TEXT), "null"),
    default("devices", Shape::OrNull(&Shape::List(&DEVICES_25_04)), "null"),
    default("memory", MEMORY_SIZE, "null"),
];
const CREATE_25_10: &[Field] = &[
    required("name", NAME),
    default("source_type", Shape::OneOf(&["IMAGE"]), "\"IMAGE\""),
    default("storage_pool", Shape::OrNull(&SOME_TEXT), "null"),
    required("image", NAME),
    default("root_disk_size", Shape::Int(Some(5), None), "10"),
    default(
        "root_disk_io_bus",
        Shape::OneOf(&["NVME", "VIRTIO-BLK", "VIRTIO-SCSI"]),
        "\"NVME\"",
    ),
    default("remote", Shape::OneOf(&["LINUX_CONTAINERS"]), "\"LINUX_CONTAINERS\""),
    default("instance_type", Shape::OneOf(&["CONTAINER"]), "\"CONTAINER\""),
    default("environment", ENVIRONMENT, "null"),
    default("autostart", Shape::OrNull(&Shape::Bool), "true"),
    default("cpu", Shape::OrNull(&TEXT), "null"),
    default("devices", Shape::OrNull(&Shape::List(&DEVICES_25_10)), "null"),
    default("memory", MEMORY_SIZE, "null"),
    default("privileged_mode", Shape::Bool, "false"),
];

const UPDATE: &[Field] = &[
    optional("environment", ENVIRONMENT),
    optional("autostart", Shape::OrNull(&Shape::Bool)),
    optional("cpu", Shape::OrNull(&TEXT)),
    optional("memory", MEMORY_SIZE),
    optional("vnc_port", Shape::OrNull(&Shape::Int(Some(5900), Some(65535)))),
    optional("enable_vnc", Shape::Bool),
    optional("vnc_password", Shape::OrNull(&SOME_TEXT)),
    optional("secure_boot", Shape::Bool),
    optional("root_disk_size", Shape::OrNull(&Shape::Int(Some(5), None))),
    optional(
        "root_disk_io_bus",
        Shape::OrNull(&Shape::OneOf(&["NVME", "VIRTIO-BLK", "VIRTIO-SCSI"])),
    ),
];

const ID: &[Field] = &[required("id", TEXT)];
const STOP: &[Field] = &[
    required("id", TEXT),
    default(
        "stop_args",
        Shape::Object(
            "StopArgs",
            &[default("timeout", INT, "-1"), default("force", Shape::Bool, "false")],
        ),
        "{}",
    ),
];

pub(super) fn methods(dialect: Dialect) -> Vec<Method> {
    let create: &[Field] = match dialect {
        Dialect::V25_04 => {
            const {
                &[required(
                    "virt_instance_create",
                    Shape::Object("VirtInstanceCreate", CREATE_25_04),
                )]
            }
        }
        _ => {
            const {
                &[required(
                    "virt_instance_create",
                    Shape::Object("VirtInstanceCreate", CREATE_25_10),
                )]
            }
        }
    };
    const CHANGE: &[Field] = &[
        required("id", TEXT),
        required("virt_instance_update", Shape::Object("VirtInstanceUpdate", UPDATE)),
    ];
    vec![
        Method::read("virt.global.config", &[], run!(config)),
        Method::read("virt.instance.query", QUERY, run!(query)),
        Method::read("virt.instance.get_instance", INSTANCE, run!(get_instance)),
        Method::write("virt.instance.create", create, run!(create_instance)).job(lock_of_create),
        Method::write("virt.instance.update", CHANGE, run!(update_instance)).job(lock_of_id),
        Method::write("virt.instance.delete", ID, run!(delete)).job(lock_of_id),
        Method::write("virt.instance.start", ID, run!(start)).job(lock_of_id),
        Method::write("virt.instance.stop", STOP, run!(stop)).job(lock_of_id),
        Method::write("virt.instance.restart", STOP, run!(restart)).job(lock_of_id),
        Method::read("virt.instance.device_list", ID, run!(device_list)),
    ]
}

fn environment_key(key: &str) -> Option<&'static str> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let mut characters = key.chars();
    let good = characters.next().is_some_and(word) && characters.all(|c| word(c) || c == '/');
    (!good).then_some(
        "ENV_KEY must not be empty, should start with alphanumeric characters, should not contain whitespaces, and \
         can have _ and /",
    )
}

fn environment_value(value: &str) -> Option<&'static str> {
    // A line that is not blank must come first.
    let first = value.lines().next().unwrap_or_default();
    let good = !value.trim().is_empty() && !first.is_empty();
    (!good).then_some("ENV_VALUE must have at least one non-whitespace character to be considered valid")
}

fn lock_error() -> Failure {
    Failure::call(
        super::super::failure::errno::EINVAL,
        "Error handling job lock. This is most likely caused by invalid call arguments.",
    )
}

fn lock_of_create(params: &[Value]) -> Result<String, Failure> {
    let object = params.first().and_then(Value::as_object).ok_or_else(lock_error)?;
    let name = object.get("name").and_then(Value::as_str).unwrap_or("None");
    Ok(format!("instance_action_{name}"))
}

fn lock_of_id(params: &[Value]) -> Result<String, Failure> {
    let id = params.first().ok_or_else(lock_error)?;
    Ok(format!("instance_action_{}", id.as_str().unwrap_or_default()))
}

async fn config(_: Call) -> Outcome {
    Ok(json!({
        "id": 1,
        "pool": POOLS[0],
        "dataset": format!("{}/.ix-virt", POOLS[0]),
        "storage_pools": POOLS,
        "bridge": null,
        "v4_network": "10.64.0.1/24",
        "v6_network": null,
        "state": "INITIALIZED",
    }))
}

async fn query(call: Call) -> Outcome {
    let all = containers::virt_entries(&call.server, &call.params[1]["extra"]).await?;
    filter::query(all, &call.params[0], &call.params[1])
}

async fn find(call: &Call, id: &Value) -> Outcome {
    // Only `get_instance` has options here.
    let extra = call.params.get(1).map_or(&Value::Null, |options| &options["extra"]);
    filter::instance(containers::virt_entries(&call.server, extra).await?, id, "VirtInstance")
}

async fn get_instance(call: Call) -> Outcome {
    find(&call, &call.params[0]).await
}

/// What both creation and change are checked for beyond their types.
fn limits(data: &Value, parameter: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, text: &str| faults.push(Fault::new(format!("{parameter}.{field}"), text));
    match data["memory"].as_u64() {
        Some(memory) if memory < 33_554_432 => fault("memory", "Value error, Value must be 32MiB or larger"),
        Some(memory) if memory > MEMORY => fault("memory", "Cannot reserve more than physical memory"),
        _ if data["memory"].is_i64() && data["memory"].as_u64().is_none() => {
            fault("memory", "Value error, Value must be 32MiB or larger");
        }
        _ => {}
    }
    let cpu = data["cpu"].as_str().and_then(|cpu| cpu.parse::<u64>().ok());
    if cpu.is_some_and(|cpu| cpu > CORES) {
        fault("cpu", "Cannot reserve more than system cores");
    }
    faults
}

async fn create_instance(call: Call) -> Outcome {
    let data = &call.params[0];
    let parameter = "virt_instance_create";
    let mut faults = limits(data, parameter);
    let name = data["name"].as_str().unwrap_or_default();
    let all = containers::virt_entries(&call.server, &Value::Null).await?;
    if all.iter().any(|entry| entry["id"] == name) {
        faults.push(Fault::new(
            format!("{parameter}.name"),
            format!("Name '{name}' already exists"),
        ));
    }
    let pool = data["storage_pool"].as_str();
    if pool.is_some_and(|pool| !POOLS.contains(&pool)) {
        faults.push(Fault::new(format!("{parameter}.storage_pool"), "Not a valid ZFS pool"));
    }
    let devices = data["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (index, device) in devices.iter().enumerate() {
        if device["dev_type"] == "NIC" {
            if device["nic_type"].is_null() && device["network"].is_null() {
                // What the original makes of it is an exception in Python.
                let message = "'NoneType' object has no attribute 'lower'".to_owned();
                let class = "AttributeError";
                return Err(Failure::Raised { class, message });
            }
            if !["enp1s0", "enp2s0", "br0", "incusbr0"].contains(&device["parent"].as_str().unwrap_or("incusbr0")) {
                faults.push(Fault::new(
                    format!("{parameter}.devices.{index}.parent"),
                    "Invalid parent",
                ));
            }
        }
    }
    if !faults.is_empty() {
        return Err(Failure::Invalid(faults));
    }
    let wanted = Wanted {
        name,
        image: data["image"].as_str().unwrap_or_default(),
        pool: pool.unwrap_or(POOLS[0]),
        config: containers::virt_config(data),
        nic: devices
            .iter()
            .find(|device| device["dev_type"] == "NIC")
            .map(|nic| nic["name"].as_str().unwrap_or("eth0")),
    };
    containers::create(&call.server, &wanted).await?;
    if data["autostart"] == true {
        containers::start(&call.server, name).await?;
    }
    find(&call, &json!(name)).await
}

async fn update_instance(call: Call) -> Outcome {
    let found = find(&call, &call.params[0]).await?;
    let data = &call.params[1];
    let faults = limits(data, "virt_instance_update");
    if !faults.is_empty() {
        return Err(Failure::Invalid(faults));
    }
    containers::virt_update(&call.server, found["id"].as_str().unwrap_or_default(), data).await?;
    find(&call, &call.params[0]).await
}

async fn delete(call: Call) -> Outcome {
    let found = find(&call, &call.params[0]).await?;
    containers::delete(&call.server, found["id"].as_str().unwrap_or_default()).await?;
    Ok(json!(true))
}

async fn start(call: Call) -> Outcome {
    find(&call, &call.params[0]).await?;
    containers::start(&call.server, call.text(0)).await?;
    Ok(json!(true))
}

fn stop_arguments(call: &Call) -> Result<(i64, bool), Failure> {
    let arguments = &call.params[1];
    let (timeout, force) = (arguments["timeout"].as_i64().unwrap_or(-1), arguments["force"] == true);
    if !force && timeout == -1 {
        return Err(Failure::invalid(
            "",
            "Value error, Timeout should be set if force is disabled",
        ));
    }
    Ok((timeout, force))
}

async fn stop(call: Call) -> Outcome {
    let (timeout, force) = stop_arguments(&call)?;
    containers::stop(&call.server, call.text(0), timeout, force).await?;
    Ok(json!(true))
}

async fn restart(call: Call) -> Outcome {
    let (timeout, force) = stop_arguments(&call)?;
    let found = find(&call, &call.params[0]).await?;
    if found["status"] == "RUNNING" {
        containers::stop(&call.server, call.text(0), timeout, force).await?;
    }
    containers::start(&call.server, call.text(0)).await?;
    Ok(json!(true))
}

async fn device_list(call: Call) -> Outcome {
    find(&call, &call.params[0]).await?;
    containers::virt_devices(&call.server, call.text(0)).await
}
