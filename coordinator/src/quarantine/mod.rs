//! Quarantine: tests that are known to fail and may not stop anybody, until a day, for a reason, on
//! somebody's account. They go on being run, and leave when runs show that they do not fail any more.
//! Pure: entries in, decisions and text out.

pub mod export;
pub mod file;
pub mod rule;

use crate::experiment::matches;
use flakefarm_shared::{SweepId, UnixMicros};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

/// Longest reason, owner or ticket, in characters.
pub const LONGEST_TEXT: usize = 500;
/// Longest id or pattern of a test, in characters.
pub const LONGEST_TEST: usize = 4_000;
/// Entries of a project.
pub const MOST_ENTRIES: usize = 5_000;

/// A test in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The test, by its id as its framework or report spells it; or a pattern with `*`.
    pub test: String,
    /// Only this failure is muted, by its sixteen hexadecimal digits: any other one still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Where it is worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// The last day on which it holds, `2026-12-24`. What is no date has expired.
    pub expires: String,
    /// When it was added, in microseconds since the Unix epoch.
    #[serde(default)]
    pub added_at: UnixMicros,
    /// By whom.
    #[serde(default)]
    pub added_by: String,
    /// How.
    #[serde(default)]
    pub origin: Origin,
    /// Runs of it since then, and failures among them.
    #[serde(default)]
    pub runs: u64,
    /// Failures among them.
    #[serde(default)]
    pub failures: u64,
    /// The last sweep that measured it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_by: Option<SweepId>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured_at: Option<UnixMicros>,
}

/// How an entry came about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Somebody added it.
    #[default]
    Hand,
    /// A rule of the project did.
    Rule,
    /// It stands in a file of the project.
    File,
}

impl Origin {
    /// The stable word in the database.
    pub fn word(self) -> &'static str {
        match self {
            Origin::Hand => "hand",
            Origin::Rule => "rule",
            Origin::File => "file",
        }
    }

    /// The one of this word; anything else is by hand.
    pub fn of_word(word: &str) -> Self {
        match word {
            "rule" => Origin::Rule,
            "file" => Origin::File,
            _ => Origin::Hand,
        }
    }
}

/// Whether an entry holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Until the end of its last day.
    Holds,
    /// Its last day is over, or it names none.
    Expired,
}

/// A day as it is written, `2026-11-28`; none if it is none.
pub fn day(text: &str) -> Option<Date> {
    Date::parse(text.trim(), format_description!("[year]-[month]-[day]")).ok()
}

/// The day of a moment, in UTC.
pub fn day_at(at: UnixMicros) -> Date {
    let moment = OffsetDateTime::from_unix_timestamp(at.div_euclid(1_000_000));
    moment.map_or(Date::MAX, OffsetDateTime::date)
}

impl Entry {
    /// Whether it holds at `now`.
    pub fn standing(&self, now: UnixMicros) -> Standing {
        match day(&self.expires) {
            Some(last) if last >= day_at(now) => Standing::Holds,
            Some(_) | None => Standing::Expired,
        }
    }

    /// Whether it is about a test that goes by `name`.
    pub fn is_about(&self, name: &str) -> bool {
        self.test == name || (self.test.contains('*') && matches(&self.test, name))
    }

    /// Whether it mutes a failure of the signature `signature` of a test that goes by one of `names`.
    pub fn mutes(&self, names: &[&str], signature: u64, now: UnixMicros) -> bool {
        let of_signature = || match &self.signature {
            Some(only) => u64::from_str_radix(only, 16).ok() == Some(signature),
            None => true,
        };
        self.standing(now) == Standing::Holds
            && names.iter().any(|name| self.is_about(name))
            && of_signature()
    }

    /// In a line for people.
    pub fn describe(&self) -> String {
        let mut text = format!("{}, until {}", self.reason, self.expires);
        for (what, value) in [("owner", &self.owner), ("ticket", &self.ticket)] {
            if let Some(value) = value {
                write!(text, ", {what} {value}").expect("writing to memory");
            }
        }
        text
    }

    /// What is wrong with it: the key, and why.
    pub fn wrong(&self) -> Vec<(&'static str, String)> {
        let mut wrong = Vec::new();
        let length = |text: &str| text.chars().count();
        if self.test.trim().is_empty() {
            wrong.push(("test", "a test is named by its id".to_owned()));
        } else if length(&self.test) > LONGEST_TEST {
            wrong.push(("test", format!("an id has at most {LONGEST_TEST} characters")));
        } else if self.test.chars().all(|c| matches!(c, '*' | '?')) {
            wrong.push(("test", "every test at once cannot be in quarantine".to_owned()));
        }
        if self.reason.trim().is_empty() {
            wrong.push(("reason", "somebody has to say why".to_owned()));
        }
        for (key, text) in
            [("reason", Some(&self.reason)), ("owner", self.owner.as_ref()), ("ticket", self.ticket.as_ref())]
        {
            if text.is_some_and(|text| length(text) > LONGEST_TEXT) {
                wrong.push((key, format!("it has more than {LONGEST_TEXT} characters")));
            }
        }
        if day(&self.expires).is_none() {
            let said: String = self.expires.chars().take(40).collect();
            wrong.push(("expires", format!("`{said}` is no date such as 2026-12-24: the entry has expired")));
        }
        if let Some(signature) = &self.signature
            && (signature.len() != 16 || !signature.chars().all(|c| c.is_ascii_hexdigit()))
        {
            wrong.push(("signature", "a signature is sixteen hexadecimal digits".to_owned()));
        }
        wrong
    }
}

/// Something that was done to a project's quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// When.
    pub at: UnixMicros,
    /// The test.
    pub test: String,
    /// The signature, if only one failure is meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// `added`, `changed`, `removed`, `left`, `expired`.
    pub action: String,
    /// Who did it.
    pub who: String,
    /// Why.
    pub why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMicros = 1_795_824_000_000_000; // 2026-11-28

    pub(super) fn entry(test: &str, expires: &str) -> Entry {
        Entry {
            test: test.to_owned(),
            signature: None,
            reason: "it races".to_owned(),
            owner: None,
            ticket: None,
            expires: expires.to_owned(),
            added_at: 0,
            added_by: String::new(),
            origin: Origin::Hand,
            runs: 0,
            failures: 0,
            measured_by: None,
            measured_at: None,
        }
    }

    #[test]
    fn an_entry_holds_to_the_end_of_its_last_day_and_without_a_date_not_at_all() {
        let check = |expires: &str, expect: Standing| {
            assert_eq!(entry("a", expires).standing(NOW), expect, "{expires}");
        };
        assert_eq!(day_at(NOW).to_string(), "2026-11-28");
        check("2026-11-28", Standing::Holds);
        check("2027-01-01", Standing::Holds);
        check("2026-11-27", Standing::Expired);
        for none in ["", "soon", "2026-13-01", "28.11.2026", "never"] {
            check(none, Standing::Expired);
            assert!(entry("a", none).wrong().iter().any(|(key, _)| *key == "expires"), "{none}");
        }
    }

    #[test]
    fn another_failure_of_a_muted_signature_still_counts() {
        let any = entry("t.py::a", "2027-01-01");
        let one = Entry { signature: Some("00000000000000ff".to_owned()), ..any.clone() };
        assert!(any.mutes(&["t.py::a"], 7, NOW));
        assert!(!any.mutes(&["t.py::ab"], 7, NOW), "a part of an id is another test");
        assert!(one.mutes(&["x", "t.py::a"], 255, NOW));
        assert!(!one.mutes(&["t.py::a"], 7, NOW));
        let parametrised = entry("t.py::b[*]", "2027-01-01");
        assert!(parametrised.mutes(&["t.py::b[1-2]"], 0, NOW));
        assert!(!parametrised.mutes(&["t.py::b"], 0, NOW));
        assert!(entry("**", "2027-01-01").wrong().iter().any(|(key, _)| *key == "test"));
    }
}
