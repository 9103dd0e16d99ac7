//! What a value may be.

/// The type of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    /// Any text; numbers and booleans as they are spelled.
    Text,
    /// One line of text, shown to readers or handed to a backend.
    Note,
    /// Text that is run or matched, and so must not be empty.
    Line,
    /// `[a-z][a-z0-9-]*`; never expanded.
    Name,
    /// The name of an egress policy, sandbox, template and so on that must exist.
    Reference,
    /// An image, as the backend names it.
    Image,
    /// A whole number within bounds.
    Integer {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// `true` or `false`.
    Boolean,
    /// `10GiB`.
    Size,
    /// A size, or a share such as `50%`.
    Memory,
    /// `1h30m`.
    Duration,
    /// `0644`.
    Mode,
    /// An absolute path in a sandbox.
    GuestPath,
    /// A path on this machine, relative to the file that names it.
    Source,
    /// The path of another spec file; never expanded.
    Include,
    /// A login name.
    UserName,
    /// The name of an environment variable.
    EnvironmentVariable,
    /// A port, 1 to 65535.
    Port,
    /// A port, or a range such as `8000-8100`.
    Ports,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// A host name, an address or a network.
    Destination,
    /// `KIND[:NAME][.FIELD]`.
    Field,
    /// `2027-01-31`.
    Date,
    /// A cluster's member, or `@group`.
    Target,
    /// A backend's own key.
    ConfigKey,
    /// The value of a backend's own key: one line, and not empty, which to a backend is no value.
    Setting,
    /// A gitignore pattern.
    Pattern,
}

impl Type {
    /// What to call it in "expected …".
    pub(crate) fn description(self) -> String {
        match self {
            Self::Text | Self::Line => "a string".to_owned(),
            Self::Note | Self::Setting => "one line of text".to_owned(),
            Self::Name | Self::Reference => "a name".to_owned(),
            Self::Image => "an image's name".to_owned(),
            Self::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Self::Boolean => "`true` or `false`".to_owned(),
            Self::Size => "a size such as \"10GiB\"".to_owned(),
            Self::Memory => "a size such as \"1GiB\" or \"50%\"".to_owned(),
            Self::Duration => "a duration such as \"90s\"".to_owned(),
            Self::Mode => "octal digits such as \"0644\"".to_owned(),
            Self::GuestPath => "an absolute path".to_owned(),
            Self::Source => "a path relative to this file".to_owned(),
            Self::Include => "the path of a spec file".to_owned(),
            Self::UserName => "a login name".to_owned(),
            Self::EnvironmentVariable => "the name of an environment variable".to_owned(),
            Self::Port => "a port from 1 to 65535".to_owned(),
            Self::Ports => "a port, or a range such as \"8000-8100\"".to_owned(),
            Self::Word(words) => one_of(words),
            Self::Destination => "a host name, an address or a network".to_owned(),
            Self::Field => "a field such as \"file:/etc/hosts.mode\"".to_owned(),
            Self::Date => "a date such as \"2027-01-31\"".to_owned(),
            Self::Target => "a cluster member or \"@group\"".to_owned(),
            Self::ConfigKey => "a setting's key".to_owned(),
            Self::Pattern => "a pattern in gitignore syntax".to_owned(),
        }
    }

    /// Whether variables in it are expanded.
    pub(crate) fn expands(self) -> bool {
        !matches!(self, Self::Name | Self::Reference | Self::Include | Self::ConfigKey)
    }

    /// Whether a number will do.
    pub(crate) fn takes_number(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::Note
                | Self::Setting
                | Self::Integer { .. }
                | Self::Size
                | Self::Memory
                | Self::Mode
                | Self::Port
                | Self::Ports
        )
    }

    /// Whether a string will do, even one without a variable in it.
    pub(crate) fn takes_string(self) -> bool {
        !matches!(self, Self::Integer { .. } | Self::Boolean | Self::Port)
    }

    /// Whether a boolean will do.
    pub(crate) fn takes_boolean(self) -> bool {
        matches!(self, Self::Text | Self::Note | Self::Setting | Self::Boolean)
    }
}

/// `"a", "b" or "c"`.
pub(crate) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}
