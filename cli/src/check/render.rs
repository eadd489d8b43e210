//! The answers as text: for people, as JSON, as a short comment, as GitHub's annotations, and as
//! GitLab's code quality report. When all is well there is nothing to say.

use super::answers::{Answer, Answered};
use super::known::Known;
use crate::codequality::{self, Finding, Severity};
use serde::Serialize;
use std::fmt::Write as _;

/// Answers shown one by one in a comment.
const SHOWN: usize = 20;

/// All that is known of a job.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub(super) schema: &'static str,
    pub(super) reports: usize,
    pub(super) cases: u64,
    pub(super) passed: u64,
    pub(super) failed: u64,
    /// Failed cases beyond those that were looked into.
    pub(super) not_looked_into: u64,
    /// The confidence of what reruns prove.
    pub(super) confidence: f64,
    pub(super) answers: Vec<Answered>,
    pub(super) exit_code: i32,
    /// What could not be read, and what was not tried.
    pub(super) notes: Vec<String>,
}

pub(super) const SCHEMA: &str = "flakefarm.check/v1";

impl Checked {
    fn headline(&self) -> String {
        format!("{} of {} passed", self.passed, self.cases)
    }

    /// For people.
    pub(super) fn human(&self) -> String {
        let mut text = format!("{}\n", self.headline());
        let width = self.answers.iter().map(|answered| answered.answer.words().len()).max().unwrap_or(0);
        for answered in &self.answers {
            let (id, words) = (plain(&answered.id), answered.answer.words());
            writeln!(text, "\n{words:<width$}  {id}").expect("writing to memory");
            writeln!(text, "{:width$}  {}", "", plain(&self.evidence(answered))).expect("writing to memory");
            if !answered.message.is_empty() {
                writeln!(text, "{:width$}  in the job: {}", "", plain(&answered.message))
                    .expect("writing to memory");
            }
            if let Some(reproduce) = &answered.reproduce {
                writeln!(text, "{:width$}  again: {}", "", plain(reproduce)).expect("writing to memory");
            }
        }
        for note in &self.notes {
            writeln!(text, "\nnote: {}", plain(note)).expect("writing to memory");
        }
        text
    }

    /// A short comment, led by how many passed; empty when all is well.
    pub(super) fn markdown(&self) -> String {
        if self.answers.is_empty() {
            return String::new();
        }
        let mut text = format!("**{}**\n\n", self.headline());
        for answered in self.answers.iter().take(SHOWN) {
            writeln!(
                text,
                "- **{}** {}: {}",
                answered.answer.words(),
                code(&answered.id),
                escaped(&self.evidence(answered))
            )
            .expect("writing to memory");
        }
        if self.answers.len() > SHOWN {
            writeln!(text, "- and {} more", self.answers.len() - SHOWN).expect("writing to memory");
        }
        if let Some(reproduce) = self.answers.iter().find_map(|answered| answered.reproduce.as_ref()) {
            writeln!(text, "\nAgain: {}", code(reproduce)).expect("writing to memory");
        }
        for note in &self.notes {
            writeln!(text, "\n{}", escaped(note)).expect("writing to memory");
        }
        text
    }

    /// Annotations of GitHub's workflow commands.
    pub(super) fn github(&self) -> String {
        let mut text = String::new();
        for answered in &self.answers {
            let level = match answered.answer {
                Answer::Broken => "error",
                Answer::Flaky | Answer::CouldNotRun => "warning",
                Answer::Before | Answer::NotReproduced | Answer::Quarantined => "notice",
            };
            let file =
                answered.file.as_ref().map_or_else(String::new, |file| format!("file={},", property(file)));
            let title = format!("{}: {}", answered.answer.words(), answered.id);
            writeln!(text, "::{level} {file}title={}::{}", property(&title), data(&self.evidence(answered)))
                .expect("writing to memory");
        }
        text
    }

    /// GitLab's code quality report.
    pub(super) fn gitlab(&self) -> String {
        let findings = self.answers.iter().map(|answered| Finding {
            check: format!("flakefarm-{}", answered.answer.words().replace(' ', "-")),
            // GitLab demands a path.
            file: answered.file.clone().unwrap_or_else(|| ".".to_owned()),
            description: format!(
                "{}: {} ({})",
                answered.answer.words(),
                answered.id,
                self.evidence(answered)
            ),
            identity: answered.id.clone(),
            severity: match answered.answer {
                Answer::Broken => Severity::Major,
                Answer::Flaky | Answer::CouldNotRun => Severity::Minor,
                Answer::Before | Answer::NotReproduced | Answer::Quarantined => Severity::Info,
            },
        });
        codequality::render(findings)
    }

    /// What was seen, in a sentence.
    pub(super) fn evidence(&self, answered: &Answered) -> String {
        let known = answered.known.as_ref().map(known_words).unwrap_or_default();
        self.shown_now(answered) + &known
    }

    fn shown_now(&self, answered: &Answered) -> String {
        let runs = |count: u64| if count == 1 { "1 rerun".to_owned() } else { format!("{count} reruns") };
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let failed = || format!("failed in {} of {}", answered.failures, runs(answered.attempts));
        let before = || match answered.base {
            Some([attempts, 0]) => format!(", and in none of {} before the change", runs(attempts)),
            Some([attempts, failures]) => {
                format!(", and in {failures} of {} before the change", runs(attempts))
            }
            None => String::new(),
        };
        match (answered.answer, answered.rate) {
            (Answer::Quarantined | Answer::CouldNotRun, _) => answered.reason.clone().unwrap_or_default(),
            (Answer::Flaky, _) if answered.attempts == 0 => answered.reason.clone().unwrap_or_default(),
            (Answer::Flaky, Some([lower, upper]))
                if answered.reason.is_none() && answered.failures < answered.attempts =>
            {
                format!(
                    "{}: it flakes {} to {} of the time{}",
                    failed(),
                    percent(lower),
                    percent(upper),
                    before()
                )
            }
            (Answer::Flaky, _) if answered.reason.is_some() => {
                format!("{}: {}", failed(), answered.reason.as_deref().unwrap_or_default())
            }
            (Answer::Flaky | Answer::Broken | Answer::Before, _) => failed() + &before(),
            (Answer::NotReproduced, _) => format!(
                "{} passed: if it flakes, less than {} of the time ({} sure)",
                runs(answered.attempts),
                percent(excluded(answered.attempts, self.confidence)),
                percent(self.confidence)
            ),
        }
    }
}

/// The least rate that so many runs without a failure exclude: at it, `(1 - rate)^runs` is what is left of the
/// confidence. Runs end at a failure or all are made, so nothing is lost to looking.
fn excluded(runs: u64, confidence: f64) -> f64 {
    1.0 - (1.0 - confidence).powf(1.0 / runs.max(1) as f64)
}

/// What history says, as the end of a sentence.
fn known_words(known: &Known) -> String {
    let since = known.flaky_since.as_ref().map(|since| format!("known to be flaky since {since}"));
    let before = (known.runs > 0)
        .then(|| format!("failed in {} of {} runs of the last 90 days", known.failures, known.runs));
    let said: Vec<String> = since.into_iter().chain(before).collect();
    if said.is_empty() { String::new() } else { format!("; {}", said.join(", ")) }
}

/// Without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A code span that nothing in it can end.
fn code(text: &str) -> String {
    let text = plain(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    format!("{fence} {text} {fence}")
}

/// Text that stays text in Markdown.
fn escaped(text: &str) -> String {
    let special =
        |c: char| matches!(c, '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '#' | '|' | '@' | '!');
    let mut safe = String::new();
    for c in plain(text).chars() {
        if special(c) {
            safe.push('\\');
        }
        safe.push(c);
    }
    safe
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(ids: &[(&str, Answer)]) -> Checked {
        let answers = ids.iter().map(|(id, answer)| Answered {
            id: (*id).to_owned(),
            file: id.split_once("::").map(|(file, _)| file.to_owned()),
            answer: *answer,
            attempts: 20,
            failures: if *answer == Answer::NotReproduced { 0 } else { 7 },
            rate: Some([0.1, 0.6]),
            base: None,
            known: None,
            message: "assert 1 == 2".to_owned(),
            reason: None,
            reproduce: None,
        });
        Checked {
            schema: SCHEMA,
            reports: 1,
            cases: 50,
            passed: 50 - ids.len() as u64,
            failed: ids.len() as u64,
            not_looked_into: 0,
            confidence: 0.95,
            answers: answers.collect(),
            exit_code: 1,
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_comment_is_led_by_how_many_passed_and_silent_when_all_is_well() {
        assert_eq!(checked(&[]).markdown(), "");
        assert_eq!(checked(&[]).github(), "");
        assert_eq!(checked(&[]).gitlab(), "[]\n");
        let text = checked(&[("tests/test_a.py::test_x", Answer::Flaky)]).markdown();
        assert!(
            text.starts_with(
                "**49 of 50 passed**\n\n- **flaky** ` tests/test_a.py::test_x `: failed in 7 of 20"
            ),
            "{text}"
        );
    }

    #[test]
    fn clean_runs_say_what_they_exclude() {
        let of = |runs| format!("{:.3}", excluded(runs, 0.95));
        // The rule of three, exactly.
        assert_eq!([of(20), of(59), of(299)], ["0.139", "0.050", "0.010"]);
        let text = checked(&[("t.py::x", Answer::NotReproduced)]).markdown();
        assert!(text.contains("less than 14 % of the time (95 % sure)"), "{text}");
    }

    #[test]
    fn names_with_markup_stay_names() {
        let hostile = "a.py::x`\n::error::y` <img src=x> | @all %0A\u{1b}[31m";
        let found = checked(&[(hostile, Answer::Broken)]);
        let github = found.github();
        assert_eq!(github.lines().count(), 1, "{github}");
        assert!(!github.contains("::error::y"), "{github}");
        let markdown = found.markdown();
        assert!(markdown.contains("`` a.py::x`\u{fffd}::error::y` <img"), "{markdown}");
        assert!(!found.human().contains('\u{1b}'));
        let gitlab: serde_json::Value = serde_json::from_str(&found.gitlab()).unwrap();
        assert_eq!(gitlab[0]["location"]["path"], "a.py");
    }
}
