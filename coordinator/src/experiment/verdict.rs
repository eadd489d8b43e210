//! Verdicts.

use serde::{Deserialize, Serialize};

/// What is known of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// No failure in as many runs as were asked for.
    Healthy,
    /// A pass and a failure on one snapshot, under treatments that differ in order, or in what a plain
    /// run draws at random, at most.
    Flaky,
    /// Does the same in every plain run, and something else in other surroundings or under stress.
    Fragile,
    /// Failed every time, often enough.
    Broken,
    /// Too few runs, or none.
    Inconclusive,
    /// Skipped every time.
    Skipped,
}

impl Verdict {
    /// The stable word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Healthy => "healthy",
            Verdict::Flaky => "flaky",
            Verdict::Fragile => "fragile",
            Verdict::Broken => "broken",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Skipped => "skipped",
        }
    }
}
