//! The rule of a project: which tests enter quarantine by themselves, and when any test leaves it. Pure.

use super::{Entry, Standing, day_at};
use crate::report::Verdict;
use flakefarm_shared::{SweepId, UnixMicros};
use serde::{Deserialize, Serialize};

/// Days that an entry by rule holds unless the rule says otherwise.
const DAYS: u32 = 14;
/// Entries by rule that a project has at most unless the rule says otherwise: a farm that mutes everything
/// measures nothing.
const MOST: u32 = 20;
/// Runs without a failure from which on a test may leave.
const CLEAN_RUNS: u64 = 20;

/// What a project has decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Whether flaky tests enter by themselves.
    pub enters: bool,
    /// Those that fail at least so often.
    #[serde(default)]
    pub at_least: f64,
    /// For so many days.
    #[serde(default = "days")]
    pub days: u32,
    /// At most so many entries by rule.
    #[serde(default = "most")]
    pub most: u32,
}

fn days() -> u32 {
    DAYS
}

fn most() -> u32 {
    MOST
}

impl Default for Rule {
    fn default() -> Self {
        Self { enters: false, at_least: 0.0, days: DAYS, most: MOST }
    }
}

/// What a sweep found of one test.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<'a> {
    /// The test.
    pub test: &'a str,
    /// The verdict.
    pub verdict: Verdict,
    /// Runs that passed or failed.
    pub runs: u64,
    /// Failures among them.
    pub failures: u64,
    /// The lower end of the failure rate's interval.
    pub lower: f64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It enters.
    Enters {
        /// The test.
        test: String,
        /// Why.
        why: String,
        /// Its last day.
        expires: String,
    },
    /// It was measured.
    Measured {
        /// The entry.
        entry: Entry,
        /// Runs of this sweep.
        runs: u64,
        /// Failures among them.
        failures: u64,
    },
    /// It leaves.
    Leaves {
        /// The entry.
        entry: Entry,
        /// Why.
        why: String,
    },
}

/// What follows from a sweep of the project as it is.
pub fn decide(
    rule: &Rule,
    entries: &[Entry],
    found: &[Found<'_>],
    sweep: SweepId,
    now: UnixMicros,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let by_rule = entries.iter().filter(|entry| entry.origin == super::Origin::Rule).count();
    let mut room = (rule.most as usize).saturating_sub(by_rule);
    for entry in entries.iter().filter(|entry| entry.measured_by != Some(sweep)) {
        // A pattern is of several tests: it goes when somebody takes it away, or when it expires.
        let Some(of_test) = found.iter().find(|found| found.test == entry.test) else { continue };
        if of_test.runs == 0 {
            continue;
        }
        if of_test.verdict == Verdict::Healthy && of_test.failures == 0 && of_test.runs >= CLEAN_RUNS {
            let why = format!(
                "healthy: {} runs without a failure in sweep {sweep}{}",
                of_test.runs,
                if entry.failures > 0 {
                    format!(", after {} failures in {} runs before", entry.failures, entry.runs)
                } else {
                    String::new()
                }
            );
            changes.push(Change::Leaves { entry: entry.clone(), why });
        } else {
            let (runs, failures) = (of_test.runs, of_test.failures);
            changes.push(Change::Measured { entry: entry.clone(), runs, failures });
        }
    }
    if !rule.enters {
        return changes;
    }
    let mut flaky: Vec<&Found<'_>> = found
        .iter()
        .filter(|found| found.verdict == Verdict::Flaky && found.lower >= rule.at_least)
        .filter(|found| {
            !entries.iter().any(|entry| entry.is_about(found.test) && entry.standing(now) == Standing::Holds)
        })
        .collect();
    flaky.sort_by(|a, b| b.lower.total_cmp(&a.lower).then_with(|| a.test.cmp(b.test)));
    for found in flaky {
        if room == 0 {
            break;
        }
        room -= 1;
        let last = day_at(now).saturating_add(time::Duration::days(i64::from(rule.days)));
        let why = format!("flaky: failed in {} of {} runs of sweep {sweep}", found.failures, found.runs);
        changes.push(Change::Enters { test: found.test.to_owned(), why, expires: last.to_string() });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::super::tests::entry;
    use super::*;
    use crate::quarantine::Origin;

    const NOW: UnixMicros = 1_795_824_000_000_000; // 2026-11-28

    fn found(test: &str, verdict: Verdict, runs: u64, failures: u64) -> Found<'_> {
        Found { test, verdict, runs, failures, lower: failures as f64 / runs.max(1) as f64 / 2.0 }
    }

    #[test]
    fn flaky_tests_enter_within_the_rules_bounds_and_healthy_ones_leave() {
        let sweep = SweepId::new();
        let rule = Rule { enters: true, at_least: 0.05, days: 7, most: 2 };
        let entries = [
            entry("healthy", "2027-01-01"),
            entry("failing", "2027-01-01"),
            entry("few runs", "2027-01-01"),
            Entry { origin: Origin::Rule, ..entry("not seen", "2027-01-01") },
        ];
        let seen = [
            found("healthy", Verdict::Healthy, 59, 0),
            found("failing", Verdict::Flaky, 30, 10),
            found("few runs", Verdict::Healthy, 5, 0),
            found("often", Verdict::Flaky, 20, 10),
            found("oftener", Verdict::Flaky, 20, 15),
            found("seldom", Verdict::Flaky, 59, 1),
            found("broken", Verdict::Broken, 20, 20),
        ];
        let changes = decide(&rule, &entries, &seen, sweep, NOW);
        let said: Vec<String> = changes
            .iter()
            .map(|change| match change {
                Change::Enters { test, expires, .. } => format!("+{test} {expires}"),
                Change::Measured { entry, runs, failures } => format!("{} {failures}/{runs}", entry.test),
                Change::Leaves { entry, .. } => format!("-{}", entry.test),
            })
            .collect();
        assert_eq!(said, ["-healthy", "failing 10/30", "few runs 0/5", "+oftener 2026-12-05"]);
        // The same sweep again changes nothing of what it measured.
        let measured = Entry { measured_by: Some(sweep), ..entry("failing", "2027-01-01") };
        assert_eq!(decide(&Rule::default(), &[measured], &seen, sweep, NOW), []);
    }
}
