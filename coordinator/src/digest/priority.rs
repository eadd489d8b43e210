//! What to mend first: what a test costs, times the chance that mending it succeeds, which is learnt from the
//! project's own repairs. And what to type. Pure.

use crate::history::moves::Move;
use crate::history::questions::{TestMoved, TestRanked};
use crate::quarantine::{Entry, Standing};
use flakefarm_shared::UnixMicros;
use serde::Serialize;
use std::collections::BTreeMap;

/// Tests that are shown.
const SHOWN: usize = 10;
/// Minutes that a broken pipeline costs somebody, beside the machine.
const MINUTES_OF_A_PIPELINE: f64 = 15.0;
/// The chance of mending a test whose cause nobody knows, as a part of one whose cause is known.
const UNKNOWN_CAUSE: f64 = 0.4;

/// How proposed repairs fared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    /// Tried.
    pub tried: u64,
    /// Shown to mend their test.
    pub proved: u64,
}

impl Repairs {
    /// The chance that the next one succeeds, after what was seen: Laplace's rule of succession.
    pub fn chance(self) -> f64 {
        (self.proved as f64 + 1.0) / (self.tried as f64 + 2.0)
    }
}

/// A test that is worth mending.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Priority {
    /// The test.
    pub test: String,
    /// Minutes that it has cost in the window.
    pub minutes: f64,
    /// The chance that mending it succeeds.
    pub chance: f64,
    /// Minutes that trying to mend it is expected to save in as long a time again.
    pub worth: f64,
    /// Why it fails, if a diagnosis said.
    pub cause: Option<String>,
}

/// What to type, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Why.
    pub why: String,
    /// A command.
    pub command: String,
}

/// Flaky tests by what trying to mend them is worth.
pub(super) fn rank(
    tests: &[TestRanked],
    causes: &BTreeMap<String, String>,
    repairs: Repairs,
) -> Vec<Priority> {
    let mut ranked: Vec<Priority> = tests
        .iter()
        .filter_map(|test| {
            let cost = test.cost?;
            let machine = cost.rerun_minutes + cost.farm_minutes;
            let minutes = machine + cost.failed_pipelines as f64 * MINUTES_OF_A_PIPELINE;
            let cause = causes.get(&test.test).cloned();
            let chance = repairs.chance() * if cause.is_some() { 1.0 } else { UNKNOWN_CAUSE };
            (minutes > 0.0).then(|| Priority {
                test: test.test.clone(),
                minutes,
                chance,
                worth: minutes * chance,
                cause,
            })
        })
        .collect();
    ranked.sort_by(|a, b| b.worth.total_cmp(&a.worth).then_with(|| a.test.cmp(&b.test)));
    ranked.truncate(SHOWN);
    ranked
}

/// What follows from all of it, the most urgent first.
pub(super) fn advise(
    priorities: &[Priority],
    moved: &[TestMoved],
    entries: &[Entry],
    now: UnixMicros,
) -> Vec<Advice> {
    let quoted = |text: &str| shell_words::quote(text).into_owned();
    let quarantined = |test: &str| {
        entries.iter().any(|entry| entry.is_about(test) && entry.standing(now) == Standing::Holds)
    };
    let mut advice = Vec::new();
    for entry in entries.iter().filter(|entry| entry.standing(now) == Standing::Expired).take(SHOWN) {
        advice.push(Advice {
            why: format!("the quarantine of {} is over: its failures count again", entry.test),
            command: format!("flakefarm quarantine remove {}", quoted(&entry.test)),
        });
    }
    for priority in priorities.iter().take(3) {
        advice.push(match &priority.cause {
            Some(cause) => Advice {
                why: format!("{} is flaky ({cause}), and worth {:.0} minutes", priority.test, priority.worth),
                command: format!("flakefarm repair {}", quoted(&priority.test)),
            },
            None => Advice {
                why: format!(
                    "nobody knows why {} is flaky; it cost {:.0} minutes",
                    priority.test, priority.minutes
                ),
                command: format!("flakefarm diagnose {}", quoted(&priority.test)),
            },
        });
    }
    for test in moved.iter().filter(|test| matches!(test.moved, Move::New | Move::Worse)).take(3) {
        if !quarantined(&test.test) {
            let word = if test.moved == Move::New { "newly flaky" } else { "worse than before" };
            advice.push(Advice {
                why: format!(
                    "{} is {word}: {} of {} runs failed",
                    test.test, test.now.failures, test.now.runs
                ),
                command: format!("flakefarm bisect {}", quoted(&test.test)),
            });
        }
    }
    advice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::questions::CostSeen;

    fn test(name: &str, failed_pipelines: u64) -> TestRanked {
        TestRanked {
            test: name.to_owned(),
            first_seen: 0,
            last_seen: 0,
            classes: Vec::new(),
            flips: 0,
            moved: None,
            cost: Some(CostSeen { failed_pipelines, ..CostSeen::default() }),
        }
    }

    #[test]
    fn what_is_likely_to_be_mended_and_saves_much_comes_first() {
        let tests = [test("costly", 10), test("known", 6), test("free", 0)];
        let causes = BTreeMap::from([("known".to_owned(), "timing".to_owned())]);
        let ranked = rank(&tests, &causes, Repairs { tried: 8, proved: 6 });
        let names: Vec<&str> = ranked.iter().map(|priority| priority.test.as_str()).collect();
        assert_eq!(names, ["known", "costly"]);
        assert!((ranked[0].chance - 0.7).abs() < 1e-9);
        let advice = advise(&ranked, &[], &[], 0);
        let commands: Vec<&str> = advice.iter().map(|advice| advice.command.as_str()).collect();
        assert_eq!(commands, ["flakefarm repair known", "flakefarm diagnose costly"]);
        // Where repairs fail, a known cause is worth less.
        let poor = rank(&tests, &causes, Repairs { tried: 8, proved: 0 });
        assert!(poor[0].worth < ranked[0].worth);
    }
}
