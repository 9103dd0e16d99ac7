//! Sizes, durations and file modes.

use std::fmt;
use std::str::FromStr;

/// Why a text is not a quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidQuantity(&'static str);

/// A number of bytes. Written with a decimal (`kB` `MB` `GB` `TB`) or binary (`KiB` `MiB` `GiB` `TiB`) unit,
/// or with none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        const FORM: InvalidQuantity =
            InvalidQuantity("a size is a whole number and a unit, such as `512MiB` or `10GB`");
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
            .unwrap_or((text, 1));
        let digits = digits.trim_end();
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(FORM);
        }
        let number: u64 = digits
            .parse()
            .map_err(|_| InvalidQuantity("a size must be below 16 EiB"))?;
        number
            .checked_mul(unit)
            .map(Self)
            .ok_or(InvalidQuantity("a size must be below 16 EiB"))
    }
}

impl fmt::Display for Bytes {
    /// The largest binary unit that leaves a whole number: `1GiB`, `1536MiB`, `1000B`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, factor) in &UNITS[..4] {
            if self.0 >= *factor && self.0.is_multiple_of(*factor) {
                return f.pad(&format!("{}{unit}", self.0 / factor));
            }
        }
        f.pad(&format!("{}B", self.0))
    }
}

/// A bound on memory: a number of bytes, or a share of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Memory {
    /// So many bytes.
    Bytes(Bytes),
    /// So many hundredths of the host's memory, 1 to 100.
    Percent(u8),
}

impl FromStr for Memory {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        match text.strip_suffix('%') {
            Some(digits) => match digits.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(InvalidQuantity("a share of memory is `1%` to `100%`")),
            },
            None => text.parse().map(Self::Bytes),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => bytes.fmt(f),
            Self::Percent(percent) => f.pad(&format!("{percent}%")),
        }
    }
}

/// A length of time in whole seconds. Written as numbers with the units `s`, `m`, `h`, `d`: `90s`, `1h30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seconds(pub u64);

const TIME_UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl FromStr for Seconds {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        const FORM: InvalidQuantity =
            InvalidQuantity("a duration is whole numbers with units, such as `90s`, `10m` or `1h30m`");
        const LONG: InvalidQuantity = InvalidQuantity("a duration must be below 100 years");
        let mut rest = text;
        let mut total: u64 = 0;
        let mut units = TIME_UNITS.iter();
        if rest.is_empty() {
            return Err(FORM);
        }
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or(FORM)?;
            let number: u64 = rest[..end].parse().map_err(|_| FORM)?;
            let unit = rest[end..].chars().next().ok_or(FORM)?;
            let (_, factor) = units.find(|(name, _)| *name == unit).ok_or(FORM)?;
            total = number
                .checked_mul(*factor)
                .and_then(|part| total.checked_add(part))
                .ok_or(LONG)?;
            rest = &rest[end + unit.len_utf8()..];
        }
        if total > 100 * 365 * 86_400 {
            return Err(LONG);
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0;
        let mut text = String::new();
        for (unit, factor) in TIME_UNITS {
            if left >= factor {
                text.push_str(&format!("{}{unit}", left / factor));
                left %= factor;
            }
        }
        f.pad(if text.is_empty() { "0s" } else { &text })
    }
}

/// A file's permission bits. In a spec 0 to 0o777: setuid, setgid and sticky bits are refused, for no backend keeps
/// them over every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mode(u32);

impl Mode {
    /// `0644`, a file's default.
    pub const FILE: Self = Self(0o644);
    /// `0755`, the default of folders and of what a tree's source marks as executable.
    pub const DIRECTORY: Self = Self(0o755);
    /// `0600`, a secret's default.
    pub const SECRET: Self = Self(0o600);

    /// The bits of a mode word that was read: permissions, and setuid, setgid and sticky, which no spec can
    /// declare but a live file can have. All others are dropped.
    #[must_use]
    pub fn of_bits(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for Mode {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        if !(3..=4).contains(&text.len()) || !text.bytes().all(|b| (b'0'..=b'7').contains(&b)) {
            return Err(InvalidQuantity("a mode is three or four octal digits, such as `0644`"));
        }
        match u32::from_str_radix(text, 8) {
            Ok(bits) if bits <= 0o777 => Ok(Self(bits)),
            _ => Err(InvalidQuantity(
                "a mode has no setuid, setgid or sticky bit: `0777` at most",
            )),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:04o}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_print() {
        for (text, bytes, shown) in [
            ("1GiB", 1 << 30, "1GiB"),
            ("1024MiB", 1 << 30, "1GiB"),
            ("512 MiB", 512 << 20, "512MiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("4096", 4096, "4KiB"),
            ("0", 0, "0B"),
        ] {
            let size: Bytes = text.parse().expect(text);
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown), "{text}");
        }
        for bad in ["", "GiB", "1.5GiB", "-1GiB", "1gib", "99999999999TiB", "1 G iB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory_may_be_a_share() {
        assert_eq!("10%".parse(), Ok(Memory::Percent(10)));
        for bad in ["0%", "101%", "%", "1.5%"] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_and_print() {
        for (text, seconds, shown) in [
            ("90s", 90, "1m30s"),
            ("24h", 86_400, "1d"),
            ("1h30m", 5_400, "1h30m"),
            ("0s", 0, "0s"),
        ] {
            let duration: Seconds = text.parse().expect(text);
            assert_eq!((duration.0, duration.to_string().as_str()), (seconds, shown), "{text}");
        }
        for bad in ["", "10", "m", "1m1h", "1m2m", "-1s", "99999999d"] {
            assert!(bad.parse::<Seconds>().is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal_digits_as_written() {
        assert_eq!("0644".parse(), Ok(Mode::FILE));
        assert_eq!("755".parse(), Ok(Mode::DIRECTORY));
        for bad in ["", "8", "0o644", "4755", "64", "00644", "-644"] {
            assert!(bad.parse::<Mode>().is_err(), "{bad}");
        }
    }
}
