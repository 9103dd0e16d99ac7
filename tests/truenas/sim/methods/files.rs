//! `filesystem.*`: files on the machine itself, as its root writes them.

use serde_json::{Value, json};

use super::super::Dialect;
use super::super::check::{Field, INT, SOME_TEXT, Shape, default, required};
use super::super::containers;
use super::super::failure::{Failure, errno};
use super::super::hostfiles::{self, Place};
use super::{Call, Method, Outcome, run};

const CONTENT: Shape = Shape::Text(1, 2_048_000);

const RECEIVE: &[Field] = &[
    default("append", Shape::Bool, "false"),
    default("mode", INT, "0"),
    default("uid", INT, "-1"),
    default("gid", INT, "-1"),
];
const RECEIVE_25_10: &[Field] = &[
    default("append", Shape::Bool, "false"),
    default("mode", Shape::OrNull(&INT), "null"),
    default("uid", INT, "-1"),
    default("gid", INT, "-1"),
];

pub(super) fn methods(dialect: Dialect) -> Vec<Method> {
    let receive: &[Field] = match dialect {
        Dialect::V25_04 => {
            const {
                &[
                    required("path", SOME_TEXT),
                    required("content", CONTENT),
                    default("options", Shape::Object("FilesystemReceiveFileOptions", RECEIVE), "{}"),
                ]
            }
        }
        _ => {
            const {
                &[
                    required("path", SOME_TEXT),
                    required("content", CONTENT),
                    default(
                        "options",
                        Shape::Object("FilesystemReceiveFileOptions", RECEIVE_25_10),
                        "{}",
                    ),
                ]
            }
        }
    };
    vec![
        Method::write("filesystem.file_receive", receive, run!(file_receive)),
        Method::read("filesystem.stat", const { &[required("path", SOME_TEXT)] }, run!(stat)),
    ]
}

fn decode(text: &str) -> Option<Vec<u8>> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut gathered, mut bits) = (0_u32, 0);
    for character in text.bytes().filter(|byte| !b"=\n".contains(byte)) {
        let value = ALPHABET.iter().position(|known| *known == character)?;
        gathered = (gathered << 6) | u32::try_from(value).expect("is below 64");
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from((gathered >> bits) & 0xff).expect("is a byte"));
        }
    }
    Some(bytes)
}

async fn file_receive(call: Call) -> Outcome {
    let (path, options) = (call.text(0), &call.params[2]);
    let Some(bytes) = decode(call.text(1)) else {
        return Err(Failure::Raised {
            class: "Error",
            message: "Incorrect padding".to_owned(),
        });
    };
    let server = &call.server;
    let Some((container, below)) = hostfiles::in_container(server.dialect, server.knobs().legacy_pool, path) else {
        server.violation(format!("{path} was written, which is on the machine itself"));
        return Ok(json!(true));
    };
    // Only 26 keeps the disks of stopped containers mounted.
    if server.dialect < Dialect::V26 && !containers::runs(server, &container).await? {
        server.violation(format!(
            "{path} was written while {container} was stopped, and is not in it"
        ));
        return Ok(json!(true));
    }
    let root = server
        .daemon
        .disk(&container)
        .ok_or_else(|| Failure::fault("no daemon for the tests"))?
        .join("rootfs");
    let place = match hostfiles::walk(&root, &below) {
        Place::Inside(place) => place,
        Place::Outside(link) => {
            server.violation(format!(
                "{path} was written through the link {link}, which leads out of {container}"
            ));
            return Ok(json!(true));
        }
    };
    let number = |key: &str| options[key].as_i64().and_then(|number| u32::try_from(number).ok());
    let mode = number("mode").filter(|mode| *mode > 0);
    let written = hostfiles::write(
        &place,
        &bytes,
        options["append"] == true,
        mode,
        (number("uid"), number("gid")),
    );
    written.map_err(|error| Failure::Raised {
        class: "OSError",
        message: format!("{error}: '{path}'"),
    })?;
    Ok(json!(true))
}

async fn stat(call: Call) -> Outcome {
    let path = call.text(0);
    let missing = || Failure::call(errno::ENOENT, format!("Path {path} not found"));
    let server = &call.server;
    let Some((container, below)) = hostfiles::in_container(server.dialect, server.knobs().legacy_pool, path) else {
        let tree = server.tree().await;
        let mounted = tree
            .datasets
            .keys()
            .any(|name| tree.mountpoint(name).as_deref() == Some(path));
        return if mounted {
            Ok(shown(path, "DIRECTORY", 0o40755, 0))
        } else {
            Err(missing())
        };
    };
    let root = server.daemon.disk(&container).ok_or_else(missing)?.join("rootfs");
    // Links above it are followed, and it itself is not.
    let (above, last) = below.rsplit_once('/').unwrap_or(("", &below));
    let Place::Inside(folder) = hostfiles::walk(&root, above) else {
        server.violation(format!(
            "{path} was looked at through a link that leads out of {container}"
        ));
        return Err(missing());
    };
    let place = folder.join(last);
    let found = std::fs::symlink_metadata(&place).map_err(|_| missing())?;
    let mode = std::os::unix::fs::MetadataExt::mode(&found);
    if let Ok(target) = std::fs::read_link(&place) {
        let at = std::path::Path::new(path).parent().unwrap_or(std::path::Path::new("/"));
        let real = hostfiles::normal(&at.join(target));
        return Ok(shown(&real, "SYMLINK", mode, found.len()));
    }
    let kind = if found.is_dir() { "DIRECTORY" } else { "FILE" };
    // Only of a link is it looked up where it leads.
    Ok(shown(path, kind, mode, found.len()))
}

fn shown(path: &str, kind: &str, mode: u32, size: u64) -> Value {
    json!({
        "realpath": path, "type": kind, "size": size, "allocation_size": size, "mode": mode, "mount_id": 1,
        "uid": 0, "gid": 0, "atime": 0.0, "mtime": 0.0, "ctime": 0.0, "btime": 0.0, "dev": 1, "inode": 1,
        "nlink": 1, "acl": false, "is_mountpoint": false, "is_ctldir": false, "attributes": [],
        "user": "root", "group": "root",
    })
}
