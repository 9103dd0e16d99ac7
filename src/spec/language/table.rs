//! The nodes and keys.

use super::{Body, Form, Label, Type, Written};

const NAME: Label = Label::Required {
    key: "name",
    kind: Type::Name,
};

const fn body(label: Label, written: Written, fields: &'static [&'static [Form]]) -> Body {
    Body {
        label,
        written,
        fields,
        open: false,
        one_of: &[],
    }
}

/// A whole file.
pub(crate) static DOCUMENT: Body = body(Label::None, Written::Once, &[TOP]);

static TOP: &[Form] = &[
    Form::value(
        "environment",
        Type::Name,
        "The environment's name, the prefix of every instance's. In the root file only.",
    ),
    Form::block(
        "backend",
        "backend",
        "Where the sandboxes live, with the backend's settings; `local` when left out. In the root file only.",
        Body {
            open: true,
            ..body(
                Label::Required {
                    key: "name",
                    kind: Type::Name,
                },
                Written::Tagged,
                &[],
            )
        },
    ),
    Form::values(
        "include",
        "include",
        Type::Include,
        "Further spec files, relative to this one.",
    ),
    Form::block(
        "variable",
        "variables",
        "A variable, used as `${name}` in any string value and set by `--var name=value`.",
        body(NAME, Written::Map, &[VARIABLE]),
    ),
    Form::block(
        "defaults",
        "defaults",
        "What every sandbox has unless it, or a template of its, says otherwise.",
        body(Label::None, Written::Once, &[COMMON]),
    ),
    Form::block(
        "template",
        "templates",
        "A partial sandbox for others to `use`.",
        body(NAME, Written::Map, &[COMMON]),
    ),
    Form::block(
        "egress",
        "egress",
        "An outbound network policy that sandboxes can share by its name.",
        body(NAME, Written::Map, &[POLICY]),
    ),
    Form::block(
        "sandbox",
        "sandboxes",
        "A sandbox: a system container.",
        body(NAME, Written::Map, &[COMMON, ONLY_SANDBOX]),
    ),
];

static VARIABLE: &[Form] = &[Form::value(
    "default",
    Type::Text,
    "Its value when `--var` sets none. Taken literally.",
)];

/// What a sandbox has and a template has not.
static ONLY_SANDBOX: &[Form] = &[
    Form::value(
        "count",
        Type::Integer { min: 0, max: 1_000 },
        "How many of it there are: `task` with count 3 is `task-1` to `task-3`.",
    ),
    Form::values(
        "use",
        "use",
        Type::Reference,
        "Templates, the later ones over the earlier ones.",
    ),
];

static COMMON: &[Form] = &[
    Form::value(
        "image",
        Type::Image,
        "The image that the disk is made from, as the backend names it.",
    ),
    Form::block(
        "clone-from",
        "clone-from",
        "The sandbox of this spec that the disk is a copy of.",
        body(
            Label::Required {
                key: "sandbox",
                kind: Type::Reference,
            },
            Written::Once,
            &[CLONE],
        ),
    ),
    Form::value("cpu", Type::Integer { min: 1, max: 4_096 }, "How many CPUs it may use."),
    Form::value("memory", Type::Memory, "How much memory it may use."),
    Form::value("disk", Type::Size, "The size of its root disk."),
    Form::value(
        "state",
        Type::Word(&["running", "stopped"]),
        "Whether it runs; `running` by default.",
    ),
    Form::map(
        "env",
        Type::EnvironmentVariable,
        Type::Note,
        "Environment variables of everything that runs in it.",
    ),
    Form::block(
        "user",
        "user",
        "The unprivileged user, made when the image has none of that name.",
        body(
            Label::Required {
                key: "name",
                kind: Type::UserName,
            },
            Written::Once,
            &[USER],
        ),
    ),
    Form::block(
        "egress",
        "egress",
        "Its outbound network policy: the name of a shared one, or one of its own.",
        body(
            Label::Optional {
                key: "name",
                kind: Type::Reference,
            },
            Written::Once,
            &[POLICY],
        ),
    ),
    Form::block(
        "file",
        "files",
        "A file in the sandbox, by its absolute path.",
        Body {
            one_of: &["content", "source", "secret", "absent"],
            ..body(PATH, Written::Map, &[FILE])
        },
    ),
    Form::block(
        "tree",
        "trees",
        "A folder of the spec's, copied to an absolute path in the sandbox.",
        body(PATH, Written::Map, &[TREE]),
    ),
    Form::block(
        "run",
        "run",
        "A set-up step, run once and again when it changes. Steps run in their order.",
        Body {
            one_of: &["command", "script"],
            ..body(NAME, Written::List, &[RUN])
        },
    ),
    Form::block(
        "ready",
        "ready",
        "When the sandbox counts as ready.",
        body(Label::None, Written::Once, &[READY]),
    ),
    Form::values(
        "snapshot",
        "snapshots",
        Type::Name,
        "Snapshots to take when all else is done.",
    ),
    Form::block(
        "mount",
        "mounts",
        "A folder or a file of the repository, live in the sandbox at an absolute path.",
        body(PATH, Written::Map, &[MOUNT]),
    ),
    Form::block(
        "volume",
        "volumes",
        "A disk of its own that survives the sandbox's replacement.",
        body(NAME, Written::Map, &[VOLUME]),
    ),
    Form::block(
        "port",
        "ports",
        "A port of the sandbox that answers on 127.0.0.1 and ::1 of the host.",
        body(
            Label::Required {
                key: "port",
                kind: Type::Port,
            },
            Written::List,
            &[PORT],
        ),
    ),
    Form::values(
        "depends-on",
        "depends-on",
        Type::Reference,
        "Sandboxes that must be done first.",
    ),
    Form::value(
        "protect",
        Type::Boolean,
        "Refuse every step that would lose its disk; `false` by default.",
    ),
    Form::value(
        "ttl",
        Type::Duration,
        "How long it may live, counted from its creation; `sbx-apply gc` deletes what has outlived it.",
    ),
    Form::value(
        "target",
        Type::Target,
        "The cluster's member, or `@group`, to create it on.",
    ),
    Form::map(
        "config",
        Type::ConfigKey,
        Type::Setting,
        "Settings by the backend's own keys.",
    ),
    Form::block(
        "ignore",
        "ignore",
        "A field whose drift is accepted.",
        body(
            Label::Required {
                key: "field",
                kind: Type::Field,
            },
            Written::List,
            &[IGNORE],
        ),
    ),
];

const PATH: Label = Label::Required {
    key: "path",
    kind: Type::GuestPath,
};

static CLONE: &[Form] = &[
    Form::value(
        "snapshot",
        Type::Reference,
        "The snapshot to copy; the disk as it is when left out.",
    ),
    Form::value(
        "on-stale",
        Type::Word(&["keep", "replace"]),
        "What becomes of the clone when its source's recipe changes; `keep` by default.",
    ),
];

static USER: &[Form] = &[Form::value(
    "uid",
    Type::Integer {
        min: 0,
        max: 4_294_967_294,
    },
    "User id, and the primary group's; 1000 by default.",
)];

static POLICY: &[Form] = &[
    Form::value(
        "mode",
        Type::Word(&["unrestricted", "agent", "allowlist", "none"]),
        "Anything; the `agent` preset and `allow`; only `allow` (the default); or nothing.",
    ),
    Form::value(
        "enforce",
        Type::Word(&["host", "guest"]),
        "Outside the guest, so that its root cannot undo it, or inside; the backend's best by default.",
    ),
    Form::block(
        "allow",
        "allow",
        "A destination that may be reached: a host name, an address or a network, or another sandbox.",
        body(
            Label::Optional {
                key: "to",
                kind: Type::Destination,
            },
            Written::List,
            &[ALLOW],
        ),
    ),
];

static ALLOW: &[Form] = &[
    Form::value(
        "sandbox",
        Type::Reference,
        "In the place of a destination: another sandbox of this spec, all of a count, or one such as `db-2`.",
    ),
    Form::value("port", Type::Ports, "A port or a range of ports; all when left out."),
    Form::value(
        "protocol",
        Type::Word(&["tcp", "udp"]),
        "TCP or UDP; both when left out.",
    ),
];

const ID: Type = Type::Integer {
    min: 0,
    max: 4_294_967_294,
};

static FILE: &[Form] = &[
    Form::value("content", Type::Text, "Its contents."),
    Form::value("source", Type::Source, "The file that has its contents."),
    Form::value(
        "secret",
        Type::EnvironmentVariable,
        "The variable of the caller's environment that has its contents; never shown or stored.",
    ),
    Form::value("absent", Type::Boolean, "Whether there must be no such file."),
    Form::value(
        "mode",
        Type::Mode,
        "Permission bits in octal digits; 0644 by default, 0600 for a secret.",
    ),
    Form::value(
        "owner",
        ID,
        "User id; 0 by default, the sandbox user's below their home.",
    ),
    Form::value("group", ID, "Group id; the owner's number by default."),
    Form::value(
        "when",
        Type::Word(&["always", "create"]),
        "Whenever it differs (the default), or once, as a seed.",
    ),
];

static TREE: &[Form] = &[
    Form::required("source", Type::Source, "The folder to copy."),
    Form::value(
        "delete",
        Type::Boolean,
        "Whether what is not in the source is deleted; `false` by default.",
    ),
    Form::values(
        "exclude",
        "exclude",
        Type::Pattern,
        "Patterns in gitignore syntax of what is neither copied nor deleted.",
    ),
    Form::value(
        "owner",
        ID,
        "User id; 0 by default, the sandbox user's below their home.",
    ),
    Form::value("group", ID, "Group id; the owner's number by default."),
];

static RUN: &[Form] = &[
    Form::value("command", Type::Line, "What `/bin/sh -ec` runs."),
    Form::value("script", Type::Source, "A file to run by its own `#!` line."),
    Form::value("user", Type::UserName, "As whom; root by default."),
    Form::value("timeout", Type::Duration, "How long it may take; 10m by default."),
    Form::value(
        "on-change",
        Type::GuestPath,
        "A declared file or tree; when its contents change, the step runs again.",
    ),
];

static READY: &[Form] = &[
    Form::value(
        "command",
        Type::Line,
        "What `/bin/sh -ec` runs until it succeeds; when left out, commands must run at all.",
    ),
    Form::value("timeout", Type::Duration, "How long to wait; 60s by default."),
];

static MOUNT: &[Form] = &[
    Form::required("source", Type::Source, "The folder or the file on this machine."),
    Form::value(
        "readonly",
        Type::Boolean,
        "Whether the sandbox may only read it; `false` by default.",
    ),
];

static VOLUME: &[Form] = &[
    Form::required("path", Type::GuestPath, "Where it is mounted in the sandbox."),
    Form::value(
        "size",
        Type::Size,
        "How much it may hold; as much as there is room for when left out. It never shrinks.",
    ),
];

static PORT: &[Form] = &[
    Form::value(
        "host",
        Type::Port,
        "The port on the host; the same number by default. Of a counted sandbox, the first one's: the others follow.",
    ),
    Form::value("protocol", Type::Word(&["tcp", "udp"]), "TCP, the default, or UDP."),
];

static IGNORE: &[Form] = &[
    Form::value("until", Type::Date, "The last day, UTC; always when left out."),
    Form::value("reason", Type::Note, "Why, for the reader."),
];

/// What a backend's settings are called.
#[derive(Debug)]
pub(crate) struct BackendSettings {
    /// The backend.
    pub name: &'static str,
    /// Its keys, and what they mean.
    pub keys: &'static [(&'static str, &'static str)],
}

/// Every backend that a spec can name.
pub(crate) static BACKENDS: [BackendSettings; 3] = [
    BackendSettings {
        name: "local",
        keys: &[],
    },
    BackendSettings {
        name: "incus",
        keys: &[
            ("socket", "The daemon's unix socket."),
            ("remote", "A remote of the incus client's own configuration."),
            ("project", "The project that instances live in."),
            ("profile", "The profile that instances get."),
            ("pool", "The storage pool of root disks."),
            ("network", "The network that instances join."),
        ],
    },
    BackendSettings {
        name: "truenas",
        keys: &[
            ("host", "The system's host name or address."),
            ("port", "Its HTTPS port."),
            ("pool", "The pool of root disks."),
            ("username", "The user that the API key belongs to."),
            (
                "network",
                "The interface or bridge that instances hang on; `default` for the system's own.",
            ),
            ("nic", "How: `bridged` or `macvlan`."),
            ("domain", "The domain in which instances are found by their names."),
        ],
    },
];

/// A backend by its name.
#[must_use]
pub(crate) fn backend(name: &str) -> Option<&'static BackendSettings> {
    BACKENDS.iter().find(|backend| backend.name == name)
}

#[cfg(test)]
mod tests {
    use super::super::Shape;
    use super::*;

    #[test]
    fn every_form_has_a_description() {
        fn walk(body: &Body) {
            for form in body.forms() {
                assert!(form.doc.ends_with('.'), "{}", form.name);
                if let Shape::Block(body) = &form.shape {
                    walk(body);
                }
            }
        }
        walk(&DOCUMENT);
    }
}
