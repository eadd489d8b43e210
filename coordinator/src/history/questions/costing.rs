//! What a flaky test has cost.

use crate::db::CiCost;
use serde::{Deserialize, Serialize};

/// What a flaky test has cost over a window. A run that several flaky tests broke counts for each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CostSeen {
    /// Passes and failures in CI.
    pub ci_runs: u64,
    /// Minutes that they took.
    pub ci_minutes: f64,
    /// CI runs that it broke although it passed on the same revision and variant.
    pub failed_pipelines: u64,
    /// Attempts that a runner made again within a run because it had failed.
    pub retries: u64,
    /// CI runs that somebody started again on a revision after it had broken one.
    pub reruns: u64,
    /// Minutes that those took, as far as their reports say.
    pub rerun_minutes: f64,
    /// Passes and failures on this farm, experiments included.
    pub farm_runs: u64,
    /// Minutes that they took.
    pub farm_minutes: f64,
}

impl CostSeen {
    pub(super) fn in_ci(self, cost: CiCost) -> Self {
        Self {
            failed_pipelines: cost.failed_runs,
            retries: cost.retries,
            reruns: cost.reruns,
            rerun_minutes: minutes(cost.rerun_micros as f64),
            ..self
        }
    }
}

pub(super) fn minutes(micros: f64) -> f64 {
    micros / 60e6
}
