//! What a reader of foreign reports gives: one case at a time, bounded in every part, with each of its
//! attempts. Whatever a report says, a case holds no more than this.

use flakefarm_shared::UnixMicros;
use serde::{Deserialize, Serialize};

/// Longest name, class or file kept as it is, in bytes; longer ones end in a digest of the whole.
pub const LONGEST_NAME: usize = 1_000;
/// Longest message kept, in bytes.
pub const LONGEST_MESSAGE: usize = 2_000;
/// Longest duration believed: a week.
pub const LONGEST_MICROS: u64 = 7 * 86_400 * 1_000_000;

/// One test case of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Case {
    /// The innermost named suite around it.
    pub suite: String,
    /// What the report calls its class; empty if nothing.
    pub class: String,
    /// Its name.
    pub name: String,
    /// The file it is in, as the report spells it; empty if it says nothing.
    pub file: String,
    /// Attempts in the order they were made; at least one.
    pub attempts: Vec<CaseAttempt>,
    /// When it ran, if the report says.
    pub at: Option<UnixMicros>,
    /// The line of the report that it starts at.
    pub line: u64,
}

/// One attempt at a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseAttempt {
    /// What it did.
    pub outcome: CaseOutcome,
    /// How long it took, if the report says something that can be believed.
    pub wall_us: Option<u64>,
}

/// What one attempt at a case did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaseOutcome {
    /// It passed.
    Pass,
    /// It failed.
    Fail {
        /// What is said to have failed: an exception's type, say.
        kind: String,
        /// The message, bounded.
        message: String,
    },
    /// It did not run.
    Skip,
}

impl CaseOutcome {
    /// Whether it failed.
    pub fn is_failure(&self) -> bool {
        match self {
            CaseOutcome::Fail { .. } => true,
            CaseOutcome::Pass | CaseOutcome::Skip => false,
        }
    }
}

/// Something in a report that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The line of the report, from 1.
    pub line: u64,
    /// What is wrong, in words for people.
    pub what: String,
}

/// Bytes of a text that a problem shows.
const SHOWN_TEXT: usize = 80;
/// Problems shown of one report; more are counted.
const SHOWN_PROBLEMS: usize = 20;

/// What reading a report came to, beside its cases.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Cases that were given.
    pub cases: u64,
    /// The first problems.
    pub problems: Vec<Problem>,
    /// All of them.
    pub problem_count: u64,
    /// Whether the report was read to its end.
    pub complete: bool,
}

impl Reading {
    /// Notes a problem.
    pub fn note(&mut self, line: u64, what: impl Into<String>) {
        self.problem_count += 1;
        if self.problems.len() < SHOWN_PROBLEMS {
            self.problems.push(Problem { line, what: what.into() });
        }
    }

    /// Notes that a text of a report says nothing, if it was not understood and is not empty.
    pub fn doubt(&mut self, line: u64, what: &str, text: &str, understood: bool) {
        if !understood && !text.trim().is_empty() {
            self.note(
                line,
                format!("`{}` is no {what}: it is taken for unknown", name(cut(text, SHOWN_TEXT))),
            );
        }
    }

    /// Notes that a name holds characters that are not shown, if it does.
    pub fn doubt_name(&mut self, line: u64, text: &str) {
        if text.trim().chars().any(is_hidden) {
            self.note(
                line,
                format!("control characters in the name `{}` are replaced", name(cut(text, SHOWN_TEXT))),
            );
        }
    }
}

/// A name as it may be shown and kept: without control characters, bounded.
pub fn name(text: &str) -> String {
    let text = text.trim();
    let clean: String = text.chars().map(|c| if is_hidden(c) { '\u{fffd}' } else { c }).collect();
    if clean.len() <= LONGEST_NAME {
        return clean;
    }
    let digest = flakefarm_shared::Digest::of(clean.as_bytes());
    format!("{}…{}", cut(&clean, LONGEST_NAME - 20), digest.short())
}

/// A message as it may be kept: without control characters but for line ends and tabs, bounded.
pub fn message(text: &str) -> String {
    let text = cut(text.trim(), LONGEST_MESSAGE);
    text.chars().map(|c| if is_hidden(c) && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Control characters, and those that turn the direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The first `bytes` of a text, at the most, at the end of a character.
pub fn cut(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let mut end = bytes;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Seconds as reports write them (`0.5`, `1,234.56`, `1e-3`), in microseconds; none where nobody can
/// believe it.
pub fn seconds(text: &str) -> Option<u64> {
    let text: String = text.trim().chars().filter(|c| *c != ',' && *c != ' ').collect();
    micros(text.parse::<f64>().ok()? * 1e6)
}

/// Microseconds, if they are a duration that can be believed.
pub fn micros(micros: f64) -> Option<u64> {
    let believable = micros.is_finite() && micros >= 0.0 && micros <= LONGEST_MICROS as f64;
    believable.then_some(micros.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_believed_within_reason() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(seconds(text), expect, "{text}");
        check("0.5", Some(500_000));
        check("1,234.5", Some(1_234_500_000));
        check(" 1e-3 ", Some(1_000));
        check("0", Some(0));
        check("-1", None);
        check("NaN", None);
        check("inf", None);
        check("1e300", None);
        check("604801", None);
        check("", None);
        check("three", None);
    }

    #[test]
    fn names_show_what_they_are() {
        assert_eq!(name(" a\u{1b}[31mb\u{202e}c "), "a\u{fffd}[31mb\u{fffd}c");
        let (one, other) = ("ü".repeat(5_000), "ü".repeat(5_001));
        assert!(name(&one).len() <= LONGEST_NAME && name(&one) != name(&other));
        assert_eq!(message("a\tb\nc\0"), "a\tb\nc\u{fffd}");
        assert!(message(&one).len() <= LONGEST_MESSAGE);
    }
}
