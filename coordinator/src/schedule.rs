//! When a schedule fires: a cron expression in a time zone. Pure: what time it is, is passed in.
//!
//! A time that a change of the clocks skips fires at the first moment after it; one that comes twice
//! fires once. Expressions with a wildcard in minutes or hours follow the clock on the wall instead.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use flakefarm_shared::UnixMicros;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Rhythm {
    cron: Cron,
    zone: TimeZone,
}

/// What makes no rhythm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RhythmError {
    /// Not a cron expression.
    #[error("`{pattern}` is no cron expression: {why}")]
    Cron {
        /// What was given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not a time zone.
    #[error("`{0}` is no time zone")]
    Zone(String),
    /// It never comes.
    #[error("`{0}` never comes")]
    Never(String),
}

impl RhythmError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            RhythmError::Cron { .. } | RhythmError::Never(_) => {
                "minute, hour, day of month, month, day of week: `0 2 * * 1-5` is at 2:00 from Monday to Friday"
            }
            RhythmError::Zone(_) => "write it as in the IANA database: Europe/Berlin, America/New_York, UTC",
        }
    }
}

impl Rhythm {
    /// Of a cron expression of five fields and the name of a time zone.
    pub fn parse(pattern: &str, zone: &str) -> Result<Self, RhythmError> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).build();
        let wrong = |why: String| RhythmError::Cron { pattern: pattern.to_owned(), why };
        let why = |error: String| wrong_field(&parser, pattern).unwrap_or(error);
        let cron = parser.parse(pattern).map_err(|error| wrong(why(error.to_string())))?;
        let zone = TimeZone::get(zone).map_err(|_| RhythmError::Zone(zone.to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// The first time after `after`; none if it never comes again.
    pub fn next_after(&self, after: UnixMicros) -> Option<UnixMicros> {
        let after = Timestamp::from_microsecond(after).ok()?;
        let next: Zoned = self.cron.find_next_occurrence(&after.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp().as_microsecond())
    }

    /// The next `count` times after `after`.
    pub fn next_times(&self, after: UnixMicros, count: usize) -> Vec<UnixMicros> {
        let mut times = Vec::new();
        let mut last = after;
        while times.len() < count
            && let Some(next) = self.next_after(last)
        {
            times.push(next);
            last = next;
        }
        times
    }

    /// A time as the zone's people write it: `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub fn words(&self, at: UnixMicros) -> String {
        Timestamp::from_microsecond(at)
            .map(|at| at.to_zoned(self.zone.clone()).to_string())
            .unwrap_or_default()
    }
}

/// What is wrong with an expression that is none: how many fields it has, or the first that is none by itself.
fn wrong_field(parser: &CronParser, pattern: &str) -> Option<String> {
    const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
    let given: Vec<&str> = pattern.split_whitespace().collect();
    if given.len() != FIELDS.len() {
        return Some(format!("it has {} of five fields", given.len()));
    }
    let alone = |place: usize| {
        let field = |at| if at == place { given[at] } else { "*" };
        (0..FIELDS.len()).map(field).collect::<Vec<_>>().join(" ")
    };
    let wrong = (0..FIELDS.len()).find(|place| parser.parse(&alone(*place)).is_err())?;
    Some(format!("`{}` is no {}", given[wrong], FIELDS[wrong]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (pattern, words) in [
            ("nonsense", "it has 1 of five fields"),
            ("0 0 2 * * *", "it has 6 of five fields"),
            ("0 25 * * *", "`25` is no hour"),
            ("0 2 * 13 *", "`13` is no month"),
            ("0 2 * * mondays", "`mondays` is no day of week"),
        ] {
            let error = Rhythm::parse(pattern, "UTC").unwrap_err().to_string();
            assert_eq!(error, format!("`{pattern}` is no cron expression: {words}"));
        }
    }

    fn micros(at: &str) -> UnixMicros {
        at.parse::<Timestamp>().unwrap().as_microsecond()
    }

    fn check(pattern: &str, zone: &str, after: &str, expect: &[&str]) {
        let rhythm = Rhythm::parse(pattern, zone).unwrap();
        let found: Vec<String> = rhythm
            .next_times(micros(after), expect.len())
            .into_iter()
            .map(|at| Timestamp::from_microsecond(at).unwrap().to_string())
            .collect();
        assert_eq!(found, expect, "{pattern} in {zone}");
    }

    #[test]
    fn a_time_that_the_clocks_skip_comes_right_after_and_one_that_comes_twice_comes_once() {
        // Berlin skips 02:30 on 29 March 2026 and repeats it on 25 October.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-28T00:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        );
        check(
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T00:00:00Z",
            &["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        );
        check("0 2 * * *", "UTC", "2026-03-29T00:00:00Z", &["2026-03-29T02:00:00Z", "2026-03-30T02:00:00Z"]);
    }

    #[test]
    fn a_year_of_nights_in_three_zones_has_one_firing_a_day() {
        for zone in ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"] {
            let rhythm = Rhythm::parse("30 2 * * *", zone).unwrap();
            let times = rhythm.next_times(micros("2026-01-01T12:00:00Z"), 365);
            let mut days: Vec<String> = times.iter().map(|at| rhythm.words(*at)[..10].to_owned()).collect();
            days.dedup();
            assert_eq!(days.len(), 365, "{zone}: a day is there twice, or missing");
            assert!(times.windows(2).all(|pair| pair[0] < pair[1]));
            let last = micros("2027-01-01T12:00:00Z");
            assert!((last - times[364]).abs() < 24 * 3_600_000_000, "{zone}: {}", rhythm.words(times[364]));
        }
    }

    #[test]
    fn what_is_no_rhythm_is_refused_with_what_would_be() {
        for pattern in ["", "* * * *", "61 * * * *", "0 2 * * * *", "every night", "0 2 32 * *"] {
            let refused = Rhythm::parse(pattern, "UTC").unwrap_err();
            assert!(matches!(refused, RhythmError::Cron { .. }), "{pattern}: {refused}");
        }
        let refused = Rhythm::parse("0 2 * * *", "Europe/Atlantis").unwrap_err();
        assert_eq!(refused, RhythmError::Zone("Europe/Atlantis".to_owned()));
        assert_eq!(Rhythm::parse("0 2 30 2 *", "UTC").unwrap().next_after(0), None, "30 February");
    }
}
