//! `core.*`: subscriptions, jobs, options.

use serde_json::{Value, json};

use super::super::Dialect;
use super::super::check::{Field, INT, Shape, TEXT, default, optional, required};
use super::super::failure::{Failure, errno};
use super::super::filter::{self, QUERY};
use super::{Call, Method, Outcome, run};

const OPTIONS: &[Field] = &[
    optional("private_methods", Shape::Bool),
    optional("py_exceptions", Shape::Bool),
    optional("legacy_jobs", Shape::Bool),
];

const SERVICE: &[Field] = &[
    default("service", Shape::OrNull(&TEXT), "null"),
    default("target", Shape::OneOf(&["WS", "CLI", "REST"]), "\"WS\""),
];

pub(super) fn methods(dialect: Dialect) -> Vec<Method> {
    let options: &[Field] = match dialect {
        // Whatever is not known is ignored.
        Dialect::V25_04 => const { &[required("options", Shape::Map(None, &Shape::Any))] },
        _ => const { &[required("options", Shape::Object("CoreSetOptionsOptions", OPTIONS))] },
    };
    vec![
        Method::read("core.ping", &[], run!(ping)),
        Method::read("core.subscribe", const { &[required("event", TEXT)] }, run!(subscribe)),
        Method::read(
            "core.unsubscribe",
            const { &[required("id_", TEXT)] },
            run!(unsubscribe),
        ),
        Method::read("core.set_options", options, run!(set_options)).open(),
        Method::read("core.get_jobs", QUERY, run!(get_jobs)),
        Method::read("core.job_abort", const { &[required("id", INT)] }, run!(job_abort)),
        Method::read("core.get_methods", SERVICE, run!(get_methods)).open(),
        Method::read(
            "core.resize_shell",
            const { &[required("id", TEXT), required("cols", INT), required("rows", INT)] },
            run!(resize_shell),
        ),
    ]
}

async fn ping(_: Call) -> Outcome {
    Ok(json!("pong"))
}

async fn subscribe(call: Call) -> Outcome {
    let id = call.server.unique();
    let name = call.text(0).to_owned();
    call.session.state().subscriptions.insert(id.clone(), name);
    Ok(json!(id))
}

async fn unsubscribe(call: Call) -> Outcome {
    call.session.state().subscriptions.remove(call.text(0));
    Ok(Value::Null)
}

async fn set_options(call: Call) -> Outcome {
    if call.server.dialect == Dialect::V25_04 {
        return Ok(Value::Null);
    }
    let options = &call.params[0];
    let mut state = call.session.state();
    if let Some(legacy) = options.get("legacy_jobs").and_then(Value::as_bool) {
        state.modern_jobs = !legacy;
    }
    let private = options.get("private_methods").and_then(Value::as_bool).unwrap_or(false);
    Ok(json!({ "legacy_jobs": !state.modern_jobs, "private_methods": private, "py_exceptions": false }))
}

async fn get_jobs(call: Call) -> Outcome {
    let raw = call.params[1]["extra"]["raw_result"] == true;
    filter::query(call.server.job_list(raw), &call.params[0], &call.params[1])
}

async fn job_abort(_: Call) -> Outcome {
    // Only jobs that say so can be aborted; of ours none does, and then nothing happens.
    Ok(Value::Null)
}

async fn get_methods(call: Call) -> Outcome {
    let service = call.params[0].as_str();
    let names = call.server.method_names();
    let names = names.into_iter().filter(|name| match (service, name.rsplit_once('.')) {
        (Some(service), Some((prefix, _))) => service == prefix,
        _ => true,
    });
    Ok(names
        .map(|name| (name.to_owned(), json!({})))
        .collect::<serde_json::Map<_, _>>()
        .into())
}

async fn resize_shell(call: Call) -> Outcome {
    let size = |index: usize| call.params[index].as_u64().and_then(|size| u16::try_from(size).ok());
    let (Some(columns), Some(rows)) = (size(1), size(2)) else {
        return Err(Failure::fault("a size out of range"));
    };
    if call.server.shells.resize(call.text(0), columns, rows) {
        return Ok(Value::Null);
    }
    Err(Failure::call(errno::ENOENT, "Shell does not exist"))
}
