//! What a planner says: the jobs that are wanted now, what is left, and whether that is all.

use super::job_key::JobKey;
use flakefarm_shared::AttemptSpec;
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Jobs that are not in the ledger yet: the most informative first, but once they are the last, the
    /// longest.
    pub jobs: Vec<PlannedJob>,
    /// What is left to do, the new jobs and those under way included.
    pub remaining: Estimate,
    /// Whether the question is answered as well as it will be.
    pub state: Planning,
    /// Whether the budget leaves something unplanned that the answer would take.
    pub limited: bool,
}

/// A job to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedJob {
    /// Its name, unique within the sweep.
    pub key: JobKey,
    /// Its attempts; each one's index is its place here.
    pub attempts: Vec<AttemptSpec>,
}

/// What is left to do, as far as it can be foreseen.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// Attempts.
    pub attempts: u64,
    /// Time in containers; 0 as long as nothing of the kind was measured.
    pub container_seconds: f64,
}

impl AddAssign for Estimate {
    fn add_assign(&mut self, more: Self) {
        self.attempts += more.attempts;
        self.container_seconds += more.container_seconds;
    }
}

/// How far a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Planning {
    /// Something is under way or wanted.
    Working,
    /// Nothing is under way and nothing more is wanted.
    Complete,
    /// The time on the clock is over and nothing more is wanted, but something is still under way: it
    /// may be given up.
    Overdue,
}
