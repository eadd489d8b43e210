//! The experiment behind a cause, as reports carry it.

use crate::experiment::FailingIn;
use serde::{Deserialize, Serialize};

/// What was tried on one test, and what it showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Every condition with its counts, the baseline first.
    pub arms: Vec<ExperimentArm>,
    /// What other tests have to do with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderExperiment>,
    /// State that was left behind and differs: of the first polluter or state-setter, or of the
    /// test's own first run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateDifference>,
    /// What the test did besides: threads started, sleeps, connections.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub activity: Vec<String>,
    /// An attempt in which it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Side>,
    /// An attempt in which it passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub passing: Option<Side>,
    /// Where it fails, as questions take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_in: Option<FailingIn>,
    /// A command without flakefarm that shows it fail, in the image of the sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<String>,
    /// The tests to run, in their order, where there are too many for a command: the lines of the
    /// file that the command names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order_file: Vec<String>,
}

/// Attempts and failures under one condition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExperimentArm {
    /// The condition, in words.
    pub condition: String,
    /// What was changed around the test where it ran alone, in words; empty otherwise.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub changed: String,
    /// What it is in the experiment.
    pub role: ArmRole,
    /// Attempts in which the test passed or failed.
    pub attempts: u64,
    /// Those in which it failed.
    pub failures: u64,
}

/// What an arm is in the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmRole {
    /// Nothing was changed.
    Baseline,
    /// It explains the test.
    Explains,
    /// It was tried.
    Tried,
    /// It gave no outcome.
    Unavailable,
}

/// What other tests have to do with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderExperiment {
    /// What the tests before it do to it: `fails` or `passes`.
    pub effect: String,
    /// Polluters, or state-setters: the tests of each group are enough together.
    pub groups: Vec<Vec<String>>,
    /// Tests that undo it when they run between.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cleaners: Vec<String>,
    /// The first group and then the test.
    pub with: OrderCount,
    /// Everything else that ran before it, and then the test; absent if there was nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without: Option<OrderCount>,
    /// The test alone.
    pub alone: OrderCount,
}

/// Attempts of one list of tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderCount {
    /// Tests that ran beside it.
    pub others: u64,
    /// Attempts in which it passed or failed.
    pub attempts: u64,
    /// Those in which it failed.
    pub failures: u64,
}

/// One piece of state before and after a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDifference {
    /// The test that changed it.
    pub test: String,
    /// What kind: `module global`, `environment variable`, ...
    pub kind: String,
    /// Which one.
    pub name: String,
    /// What it was; empty if it was not there.
    pub before: String,
    /// What it is; empty if it is gone.
    pub after: String,
}

/// One attempt to be read beside another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// The condition it ran under.
    pub condition: String,
    /// The failure's message; empty if it passed.
    pub message: String,
    /// What it printed, by its digest.
    pub output: Option<String>,
}
