//! What reports say of two arms, without a change and with it.

use super::rate::Rate;
use serde::{Deserialize, Serialize};

/// What a change does to one test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What was changed, as it was given: a patch file, a branch, a revision.
    pub change: String,
    /// `fixed`, `improved`, `not_shown`, `made_worse` or `undecided`.
    pub answer: String,
    /// Why nothing is shown: `still_fails`, `never_failed`, `gone`, `too_seldom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Without the change, where the test fails; absent if it was not seen to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<ComparedArm>,
    /// The same with the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<ComparedArm>,
    /// The changed test in other company.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<ComparedArm>,
    /// Clean runs that prove a fix, given the old rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_runs_wanted: Option<u64>,
    /// The new failure rate is below this, at the sweep's confidence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_upper: Option<f64>,
    /// Other tests that passed on both sides.
    pub neighbours_passed: u64,
    /// Other tests that did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub neighbours: Vec<ComparedTest>,
    /// Attempts made.
    pub spent: u64,
    /// Attempts that the classical number of runs of both arms takes more; negative if it takes fewer.
    pub saved: i64,
}

/// Runs of one arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComparedArm {
    /// What ran with the test: `test`, `file` or `suite`.
    pub scope: String,
    /// In which order.
    pub order: String,
    /// In which world (`plain`).
    pub condition: String,
    /// Passes and failures.
    pub attempts: u64,
    /// Failures.
    pub failures: u64,
    /// Its failure rate.
    pub rate: Rate,
}

/// Another test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComparedTest {
    /// Its id.
    pub id: String,
    /// `red` (it fails with the change), `chance` (it failed no more often than chance explains) or `gone`.
    pub state: String,
    /// Failures and attempts without the change.
    pub before: (u64, u64),
    /// The same with it.
    pub after: (u64, u64),
}
