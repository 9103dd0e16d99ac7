//! Whether a text is what its type says.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::{Bytes, Date, Destination, Field, GuestPath, Memory, Mode, PortRange, Seconds, SnapshotName};

use super::Type;

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// The stable code.
    pub code: &'static str,
    /// The problem.
    pub message: String,
    /// What to do.
    pub help: String,
}

fn complain(code: &'static str, message: impl Into<String>, help: impl Into<String>) -> Result<(), Complaint> {
    Err(Complaint {
        code,
        message: message.into(),
        help: help.into(),
    })
}

/// The most bytes of a value that is not a file's contents or a command.
const SHORT: usize = 4_095;

impl Type {
    /// Checks a text, variables already expanded.
    ///
    /// # Errors
    /// What is wrong with it, and what to write instead.
    pub(crate) fn check(self, text: &str) -> Result<(), Complaint> {
        if text.contains('\0') {
            return complain(
                "spec::invalid-text",
                "a value must not contain a NUL character",
                "remove it",
            );
        }
        if !matches!(self, Self::Text | Self::Line) {
            if text.len() > SHORT {
                return complain(
                    "spec::value-too-long",
                    format!("this value has {} bytes, more than the {SHORT} it may have", text.len()),
                    "shorten it",
                );
            }
            if text.chars().any(char::is_control) {
                return complain(
                    "spec::invalid-text",
                    "a control character is not allowed here",
                    "remove it",
                );
            }
        }
        match self {
            Self::Text | Self::Note => Ok(()),
            Self::Line | Self::Pattern | Self::Setting if text.trim().is_empty() => complain(
                "spec::empty-value",
                "this must not be empty",
                "leave it out, or say what it should be",
            ),
            Self::Line | Self::Setting => Ok(()),
            Self::Pattern => match ignore::gitignore::GitignoreBuilder::new("/").add_line(None, text) {
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-pattern",
                    format!("\"{text}\" is not a pattern: {error}"),
                    "patterns are those of a .gitignore file",
                ),
            },
            // A reference is looked up; that nothing has such a name says all.
            Self::Reference => Ok(()),
            Self::Name => match SnapshotName::new(text) {
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-name",
                    format!("\"{}\" is not a valid name", shown(text)),
                    match nearest_name(text) {
                        Some(name) => format!("{error}; \"{name}\" would do"),
                        None => error.to_string(),
                    },
                ),
            },
            Self::Image => image(text),
            Self::Integer { min, max } => match text.parse::<u64>() {
                Ok(number) if (min..=max).contains(&number) => Ok(()),
                _ => complain(
                    "spec::invalid-number",
                    format!("\"{}\" is not {}", shown(text), self.description()),
                    "write decimal digits only, within these bounds",
                ),
            },
            Self::Boolean => match text {
                "true" | "false" => Ok(()),
                _ => complain(
                    "spec::wrong-type",
                    format!("expected `true` or `false`, found \"{}\"", shown(text)),
                    "write `true` or `false`",
                ),
            },
            Self::Size => match text.parse::<Bytes>() {
                Ok(Bytes(0)) => complain(
                    "spec::invalid-size",
                    "a size must not be 0",
                    "leave it out for no bound",
                ),
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-size",
                    format!("\"{}\" is not a size", shown(text)),
                    error.to_string(),
                ),
            },
            Self::Memory => match text.parse::<Memory>() {
                Ok(Memory::Bytes(Bytes(0))) => complain(
                    "spec::invalid-size",
                    "a bound on memory must not be 0",
                    "leave it out for no bound",
                ),
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-size",
                    format!("\"{}\" is not a size", shown(text)),
                    error.to_string(),
                ),
            },
            Self::Duration => match text.parse::<Seconds>() {
                Ok(Seconds(0)) => complain("spec::invalid-duration", "a duration must not be 0", "such as \"90s\""),
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-duration",
                    format!("\"{}\" is not a duration", shown(text)),
                    error.to_string(),
                ),
            },
            Self::Mode => match text.parse::<Mode>() {
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-mode",
                    format!("\"{}\" is not a file mode", shown(text)),
                    error.to_string(),
                ),
            },
            Self::GuestPath => match GuestPath::new(text) {
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-path",
                    format!("\"{}\" is not a path in a sandbox", shown(text)),
                    error.to_string(),
                ),
            },
            Self::Source | Self::Include => source(text),
            Self::UserName => user_name(text),
            Self::EnvironmentVariable => environment_variable(text),
            Self::Port => match text.parse::<u16>() {
                Ok(1..) => Ok(()),
                _ => complain(
                    "spec::invalid-port",
                    format!("\"{}\" is not a port", shown(text)),
                    "a port is a number from 1 to 65535",
                ),
            },
            Self::Ports => match ports(text) {
                Some(_) => Ok(()),
                None => complain(
                    "spec::invalid-port",
                    format!("\"{}\" is neither a port nor a range of ports", shown(text)),
                    "a port is a number from 1 to 65535; a range is \"8000-8100\", the lower end first",
                ),
            },
            Self::Word(words) if words.contains(&text) => Ok(()),
            Self::Word(words) => {
                let expected = super::kind::one_of(words);
                let message = match crate::spec::suggest::nearest(text, words.iter().copied()) {
                    Some(word) => format!("unknown value \"{}\", did you mean \"{word}\"?", shown(text)),
                    None => format!("unknown value \"{}\"", shown(text)),
                };
                complain("spec::unknown-value", message, format!("write {expected}"))
            }
            Self::Destination => destination(text).map(drop),
            Self::Field => match text.parse::<Field>() {
                Ok(_) => Ok(()),
                Err(error) => complain(
                    "spec::invalid-field",
                    format!("\"{}\" names no field", shown(text)),
                    error.to_string(),
                ),
            },
            Self::Date => match text.parse::<Date>() {
                Ok(_) => Ok(()),
                Err(()) => complain(
                    "spec::invalid-date",
                    format!("\"{}\" is not a day of the calendar", shown(text)),
                    "write year, month and day with leading zeros: \"2027-01-31\"",
                ),
            },
            Self::Target => {
                let name = text.strip_prefix('@').unwrap_or(text);
                let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(good) {
                    return Ok(());
                }
                complain(
                    "spec::invalid-target",
                    format!("\"{}\" is neither a cluster member nor a group", shown(text)),
                    "write the member's name, or \"@\" and the group's",
                )
            }
            Self::ConfigKey => {
                let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if !text.is_empty() && text.len() <= 255 && text.chars().all(good) {
                    return Ok(());
                }
                complain(
                    "spec::invalid-name",
                    format!("\"{}\" is not the key of a setting", shown(text)),
                    "keys are letters, digits, `.`, `_` and `-`, such as `limits.processes`",
                )
            }
        }
    }
}

/// A text cut to what a message can hold, without control characters.
fn shown(text: &str) -> String {
    let clean: String = text
        .chars()
        .take(80)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.chars().nth(80).is_some() {
        format!("{clean}…")
    } else {
        clean
    }
}

/// The name that a text would be in lower case with `-` for all that a name cannot have.
fn nearest_name(text: &str) -> Option<String> {
    let name: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = name.trim_matches('-').to_owned();
    (name.is_ascii() && SnapshotName::new(name.as_str()).is_ok()).then_some(name)
}

fn image(text: &str) -> Result<(), Complaint> {
    if text.is_empty() || text.chars().any(char::is_whitespace) {
        return complain(
            "spec::invalid-image",
            format!("\"{}\" is not an image's name", shown(text)),
            "an image is named as the backend knows it, such as \"debian/12\" or \"images:debian/12\"",
        );
    }
    Ok(())
}

fn source(text: &str) -> Result<(), Complaint> {
    if text.is_empty() {
        return complain(
            "spec::empty-value",
            "a path must not be empty",
            "\".\" is this file's own folder",
        );
    }
    if text.contains("://") {
        return complain(
            "spec::invalid-source",
            format!("\"{}\" is a URL, not a path", shown(text)),
            "a spec fetches nothing; keep the file beside it",
        );
    }
    if text.starts_with('/') {
        return complain(
            "spec::absolute-source",
            format!("\"{}\" is absolute", shown(text)),
            "paths on this machine are relative to the file that names them",
        );
    }
    if text.starts_with('~') {
        return complain(
            "spec::invalid-source",
            format!(
                "\"{}\" looks like a path in a home folder, which a spec cannot reach",
                shown(text)
            ),
            "paths on this machine are relative to the file that names them; write \"./~…\" for such a name",
        );
    }
    Ok(())
}

fn user_name(text: &str) -> Result<(), Complaint> {
    // As useradd(8) has it: at most 32 characters.
    let mut rest = text.chars();
    let first = rest.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_');
    if first && text.len() <= 32 && rest.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
    {
        return Ok(());
    }
    complain(
        "spec::invalid-user",
        format!("\"{}\" is not a login name", shown(text)),
        "lower-case letters, digits, `_` and `-`, at most 32, starting with a letter or `_`",
    )
}

fn environment_variable(text: &str) -> Result<(), Complaint> {
    let mut rest = text.chars();
    let first = rest.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && text.len() <= 255 && rest.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    complain(
        "spec::invalid-variable-name",
        format!("\"{}\" is not the name of an environment variable", shown(text)),
        "letters, digits and `_`, not starting with a digit",
    )
}

/// Reads `443` or `8000-8100`.
pub(crate) fn ports(text: &str) -> Option<PortRange> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(PortRange { first, last })
}

/// Reads a host name, an address or a network.
pub(crate) fn destination(text: &str) -> Result<Destination, Complaint> {
    let fail = |code, message: String, help: &str| {
        Err(Complaint {
            code,
            message,
            help: help.to_owned(),
        })
    };
    let text_shown = shown(text);
    if text.contains('*') {
        return fail(
            "spec::wildcard-domain",
            format!("\"{text_shown}\" has a wildcard, which cannot be enforced"),
            "names are resolved when planned and their addresses pinned, and nobody can list all names below a \
             domain: write each name that is needed",
        );
    }
    if text.contains("://") {
        return fail(
            "spec::invalid-destination",
            format!("\"{text_shown}\" is a URL"),
            "write the host name alone, and its port with `port`",
        );
    }
    // A packet to such an address is one to the IPv4 address in it.
    let mapped = |network: IpNet| match network {
        IpNet::V6(six) if six.prefix_len() >= 96 => {
            six.addr().to_ipv4_mapped().map(|four| (four, six.prefix_len() - 96))
        }
        _ => None,
    };
    let network = text
        .parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    if let Some((four, bits)) = network.ok().and_then(mapped) {
        let written = if bits == 32 {
            four.to_string()
        } else {
            format!("{four}/{bits}")
        };
        return fail(
            "spec::invalid-destination",
            format!("\"{text_shown}\" stands for an IPv4 address, in the form of one of IPv6"),
            &format!("write it as \"{written}\""),
        );
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Destination::Network(IpNet::from(address)));
    }
    if text.contains('/') {
        return match text.parse::<IpNet>() {
            Ok(network) if network.trunc() == network => Ok(Destination::Network(network)),
            Ok(network) => fail(
                "spec::invalid-cidr",
                format!("\"{text_shown}\" is an address within a network, not a network"),
                &format!("did you mean \"{}\", or \"{}\" alone?", network.trunc(), network.addr()),
            ),
            Err(_) => fail(
                "spec::invalid-cidr",
                format!("\"{text_shown}\" is not a network"),
                "a network is an address and a prefix length, such as \"10.20.0.0/16\"",
            ),
        };
    }
    if text.contains(':') {
        return fail(
            "spec::invalid-destination",
            format!("\"{text_shown}\" is not a host name"),
            match text.starts_with('[') {
                true => "write an IPv6 address without brackets, and the port apart from it, with `port`",
                false => "write the port apart from the name, with `port`",
            },
        );
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if !name.is_ascii() {
        return fail(
            "spec::invalid-domain",
            format!("\"{text_shown}\" has characters that no host name has"),
            "write an international name in its ASCII form, which starts with `xn--`",
        );
    }
    if name.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return fail(
            "spec::invalid-domain",
            format!("\"{text_shown}\" is not an address"),
            "an IPv4 address has four numbers from 0 to 255",
        );
    }
    // RFC 1123, section 2.1, and RFC 1035, section 2.3.4. `_` occurs in names of services.
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(Destination::Domain(name));
    }
    fail(
        "spec::invalid-domain",
        format!("\"{text_shown}\" is not a host name"),
        "a host name is letters, digits and `-`, in parts of at most 63 characters with dots between",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        for (text, shown) in [
            ("Example.COM.", "example.com"),
            ("10.0.0.1", "10.0.0.1"),
            ("10.20.0.0/16", "10.20.0.0/16"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(destination(text).expect(text).to_string(), shown);
        }
        for bad in [
            "",
            "*.example.com",
            "https://x",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "a:443",
            "a..b",
            "-a",
            "999.1.1.1",
            "ü.de",
            "::ffff:192.0.2.1",
            "::ffff:0:0/96",
        ] {
            assert!(destination(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(
            ports("8000-8100"),
            Some(PortRange {
                first: 8_000,
                last: 8_100
            })
        );
        for bad in ["", "0", "2-1", "1-", "65536", "a", "1-2-3"] {
            assert_eq!(ports(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bad_name_suggests_a_good_one() {
        let complaint = Type::Name.check("My_Box").expect_err("not a name");
        assert!(complaint.help.contains("\"my-box\""), "{}", complaint.help);
    }
}
