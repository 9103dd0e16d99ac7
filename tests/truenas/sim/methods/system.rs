//! The machine: its version, its network.

use serde_json::{Value, json};

use super::super::Dialect;
use super::super::filter::{self, QUERY};
use super::{Call, Method, Outcome, run};

pub(super) fn methods(_: Dialect) -> Vec<Method> {
    vec![
        Method::read("system.version", &[], run!(version)),
        Method::read("system.info", &[], run!(info)),
        Method::read("interface.query", QUERY, run!(interfaces)),
        Method::read("network.general.summary", &[], run!(summary)),
        Method::read("pool.query", QUERY, run!(pools)),
    ]
}

async fn version(call: Call) -> Outcome {
    Ok(json!(call.server.dialect.version()))
}

async fn info(call: Call) -> Outcome {
    Ok(json!({
        "version": call.server.dialect.version().trim_start_matches("TrueNAS-"),
        "hostname": "truenas",
        "physmem": MEMORY,
        "model": "simulated",
        "cores": CORES,
        "physical_cores": CORES,
        "loadavg": [0.1, 0.1, 0.1],
        "uptime": "1:00:00",
        "uptime_seconds": 3600.0,
        "system_serial": null,
        "system_product": null,
        "system_product_version": null,
        "license": null,
        "boottime": { "$date": 1_700_000_000_000_u64 },
        "datetime": { "$date": super::super::jobs::now() },
        "birthday": null,
        "timezone": "UTC",
        "system_manufacturer": null,
        "ecc_memory": false,
    }))
}

/// Bytes of the machine's memory.
pub(super) const MEMORY: u64 = 64 << 30;
/// Its processors.
pub(super) const CORES: u64 = 16;

/// One port whose address comes from DHCP, so that it is only in the state, one that is down, and a bridge.
async fn interfaces(call: Call) -> Outcome {
    let alias = json!({ "type": "INET", "address": "192.0.2.10", "netmask": 24, "broadcast": "192.0.2.255" });
    let interface = |name: &str, kind: &str, up: bool, dhcp: bool, aliases: Value, state: Value| {
        json!({
            "id": name,
            "name": name,
            "fake": false,
            "type": kind,
            "description": "",
            "mtu": null,
            "ipv4_dhcp": dhcp,
            "ipv6_auto": false,
            "aliases": aliases,
            "failover_critical": false,
            "state": {
                "name": name,
                "orig_name": name,
                "description": name,
                "mtu": 1500,
                "link_state": if up { "LINK_STATE_UP" } else { "LINK_STATE_DOWN" },
                "link_address": "02:00:00:00:00:01",
                "aliases": state,
            },
        })
    };
    let all = vec![
        interface("enp1s0", "PHYSICAL", true, true, json!([]), json!([alias])),
        interface("enp2s0", "PHYSICAL", false, false, json!([]), json!([])),
        interface(
            "br0",
            "BRIDGE",
            true,
            false,
            json!([{ "type": "INET", "address": "198.18.0.1", "netmask": "24" }]),
            json!([]),
        ),
    ];
    filter::query(all, &call.params[0], &call.params[1])
}

async fn summary(_: Call) -> Outcome {
    Ok(json!({
        "ips": { "enp1s0": { "IPV4": ["192.0.2.10/24"] } },
        "default_routes": ["192.0.2.1"],
        "nameservers": ["192.0.2.1"],
    }))
}

async fn pools(call: Call) -> Outcome {
    let pools = super::super::tree::POOLS.iter().enumerate();
    let all = pools.map(|(index, name)| {
        json!({
            "id": index + 1,
            "name": name,
            "guid": format!("{}", 1000 + index),
            "path": format!("/mnt/{name}"),
            "status": "ONLINE",
            "healthy": true,
            "warning": false,
            "size": 1_u64 << 40,
            "allocated": 1_u64 << 30,
            "free": (1_u64 << 40) - (1 << 30),
        })
    });
    filter::query(all.collect(), &call.params[0], &call.params[1])
}
