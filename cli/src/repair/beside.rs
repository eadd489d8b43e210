//! What is told beside proofs: whether repaired tests can still fail, what tests could expect instead, and code that
//! does something else.

use flakefarm_repair::mutants::StillFails;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Tests that are named in one line; the rest is counted.
const NAMED: usize = 3;

/// A change of what a test expects, for people to decide on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ToldOracle {
    pub(super) test: String,
    pub(super) strategy: String,
    pub(super) explanation: String,
    pub(super) diff: String,
}

impl ToldOracle {
    pub(super) fn human(&self, text: &mut String) {
        let Self { test, strategy, explanation, diff } = self;
        let _infallible = writeln!(
            text,
            "proposed only, it changes what {test} expects: {explanation} ({strategy})\n\n{diff}"
        );
    }
}

/// Code that changed, and tests that fail since.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ToldRegression {
    pub(super) subject: String,
    pub(super) tests: Vec<String>,
}

impl ToldRegression {
    pub(super) fn human(&self, text: &mut String) {
        let (first, rest) = self.tests.split_at(self.tests.len().min(NAMED));
        let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        let _infallible = writeln!(
            text,
            "not repaired: {} does something else than it did, and fails {}{more}: a regression, unless it was meant",
            self.subject,
            first.join(", ")
        );
    }
}

/// Whether repaired tests can still fail.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StillFailing {
    /// There is no code near the tests that could be changed.
    NotAsked,
    /// What they notice of changes of the code.
    Asked {
        /// Changes of the code.
        mutants: usize,
        /// Pairs of a test and a function that it ran before its repair.
        #[serde(default)]
        ran_before: usize,
        /// Pairs of a test and a change that it noticed before its repair.
        noticed_before: usize,
        /// Of these, those that it still notices.
        noticed_still: usize,
        /// Tests, and functions that they ran and do not run any more.
        not_run: Vec<String>,
        /// Tests, and changes that they noticed and do not notice any more.
        missed: Vec<String>,
    },
}

impl StillFailing {
    pub(super) fn of(mutants: usize, told: StillFails) -> Self {
        let StillFails { ran_before, noticed_before, noticed_still, not_run, missed } = told;
        Self::Asked { mutants, ran_before, noticed_before, noticed_still, not_run, missed }
    }

    pub(super) fn human(&self, text: &mut String) {
        match self {
            Self::NotAsked => {
                text.push_str("  whether it can still fail was not asked: no code near it can be changed\n")
            }
            Self::Asked { mutants, ran_before: 0, noticed_before: 0, .. } => {
                let _infallible = writeln!(
                    text,
                    "  whether it can still fail is not shown: it noticed none of {mutants} changes of the code before",
                );
            }
            Self::Asked { mutants, ran_before, noticed_before: 0, not_run, .. } if not_run.is_empty() => {
                let functions = if *ran_before == 1 { "function" } else { "functions" };
                let _infallible = writeln!(
                    text,
                    "  it still runs the {ran_before} {functions} that it ran; whether it notices what they do is not shown ({mutants} mutants)",
                );
            }
            Self::Asked { mutants, noticed_before, noticed_still, not_run, missed, .. } => {
                let _infallible = writeln!(
                    text,
                    "  it can still fail: {noticed_still} of {noticed_before} changes of the code that it noticed before are noticed ({mutants} mutants)",
                );
                for lost in not_run {
                    let _infallible = writeln!(text, "  not run any more: {lost}");
                }
                for lost in missed {
                    let _infallible = writeln!(text, "  not noticed any more: {lost}");
                }
            }
        }
    }
}
