//! Accepted drift.

use super::{Field, Place};

/// A day of the Gregorian calendar, UTC. Orders as time does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Year, 1970 to 9999.
    pub year: u16,
    /// Month, from 1.
    pub month: u8,
    /// Day of the month, from 1.
    pub day: u8,
}

impl Date {
    /// Checks and takes a day.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let leap = (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400);
        let days = match month {
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            4 | 6 | 9 | 11 => 30,
            2 if leap => 29,
            2 => 28,
            _ => return None,
        };
        ((1970..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Self { year, month, day })
    }

    /// The day on which a moment lies, given in seconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn of_unix(seconds: u64) -> Self {
        // Days since 0000-03-01, counted in eras of 400 years: 146,097 days each.
        let days = seconds / 86_400 + 719_468;
        let (era, of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self {
            year: year.min(9_999) as u16,
            month: month as u8,
            day: day as u8,
        }
    }
}

impl std::str::FromStr for Date {
    type Err = ();

    /// Reads `2027-01-31`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let form = text.len() == 10
            && text.bytes().enumerate().all(|(i, b)| {
                if i == 4 || i == 7 {
                    b == b'-'
                } else {
                    b.is_ascii_digit()
                }
            });
        if !form {
            return Err(());
        }
        let number = |range: std::ops::Range<usize>| text[range].parse::<u16>().map_err(drop);
        Self::new(number(0..4)?, number(5..7)? as u8, number(8..10)? as u8).ok_or(())
    }
}

impl std::fmt::Display for Date {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A field whose drift is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// Which.
    pub field: Field,
    /// The last day on which it is; always when none.
    pub until: Option<Date>,
    /// Why, for the reader.
    pub reason: Option<String>,
    /// Where the spec says so.
    pub at: Place,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_moments() {
        for (seconds, shown) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
            (1_798_761_599, "2026-12-31"),
        ] {
            assert_eq!(Date::of_unix(seconds).to_string(), shown);
        }
    }

    #[test]
    fn only_days_that_exist() {
        assert!("2028-02-29".parse::<Date>().is_ok());
        for bad in [
            "2027-02-29",
            "2027-13-01",
            "2027-00-01",
            "2027-1-1",
            "x",
            "2027-01-32",
            "2027/01/01",
        ] {
            assert!(bad.parse::<Date>().is_err(), "{bad}");
        }
    }
}
