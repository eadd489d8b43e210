//! Which tests are answered, and what the sweep as a whole has proved: for planner, scorer and report.

use super::history::Record;
use super::ledger::Ledger;
use flakefarm_shared::TestId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How it stands with each test, and with the suite.
#[derive(Debug, Clone, PartialEq)]
pub struct Answers {
    /// By place in the ledger.
    pub tests: Vec<TestAnswer>,
    /// Of tests that ran although they were not listed.
    pub unlisted: BTreeMap<TestId, TestAnswer>,
    /// Of a test that never ran.
    pub unseen: TestAnswer,
    /// Of the suite.
    pub suite: SuiteNumbers,
}

/// How it stands with one test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TestAnswer {
    /// Whether it is answered.
    pub answer: Answer,
    /// Clean runs that are enough, old ones included.
    pub clean_runs_wanted: u32,
    /// Runs in other worlds that count among those in the plain one, with the same outcome.
    pub elsewhere: u32,
    /// What earlier sweeps saw of it as it is now; none if that does not count.
    pub record: Option<Record>,
    /// If it never failed: the probability that it flakes at the question's rate or above.
    pub risk: f64,
}

/// What a sweep has proved of the suite, given how failure rates are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SuiteNumbers {
    /// Tests that flake at the question's rate or above and were never seen to fail: as many are
    /// expected.
    pub missed: f64,
    /// The same at whatever rate.
    pub missed_at_any_rate: f64,
    /// The share of the tests that flake at the question's rate or above that is missed: what the
    /// suite's guarantee bounds.
    pub missed_share: f64,
    /// Tests that never failed.
    pub clean_tests: u32,
    /// Mean probability of one of them to flake at the question's rate or above.
    pub mean_risk: f64,
    /// Runs of every test that miss no larger share: the fixed number with the same guarantee.
    pub fixed_runs: u32,
    /// What these take in containers; none before anything was measured.
    pub fixed_seconds: Option<f64>,
}

impl Answers {
    /// How it stands with `test`. Of one that was not listed, its counts alone decide.
    pub fn of(&self, ledger: &Ledger, test: &TestId) -> TestAnswer {
        match ledger.place(test) {
            Some(place) => self.tests[place],
            None => self.unlisted.get(test).copied().unwrap_or(self.unseen),
        }
    }

    /// Whether some test is not answered.
    pub fn any_open(&self) -> bool {
        self.tests.iter().any(|test| !test.answer.is_final())
    }
}

/// How it stands with one test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It never failed, often enough.
    Healthy,
    /// It was seen to pass and to fail, often enough to know how often.
    Flaky,
    /// It always failed, often enough.
    Broken,
    /// It was always skipped.
    Skipped,
    /// So many more runs are needed, those under way not counted.
    Open(u32),
    /// More runs would say nothing: too many were in vain.
    GivenUp,
}

impl Answer {
    /// Whether no more runs are needed.
    pub fn is_final(self) -> bool {
        !matches!(self, Answer::Open(_))
    }
}
