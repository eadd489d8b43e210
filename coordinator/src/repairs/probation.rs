//! Repairs that were accepted stay on probation: the mended tests run 59 times more, behind everything that somebody
//! waits for. 59 clean runs show, at 95 %, that a test fails less than once in twenty (0.95^59 < 0.05).

use super::RepairState;
use crate::plan::{Question, QuestionKind, Runs, TestFilter};
use crate::report::Report;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;

/// Further runs.
pub const RUNS: NonZeroU32 = NonZeroU32::new(59).expect("not 0");

/// The question that makes them, otherwise asked as `like` was.
pub fn question(like: Question, tests: &[String]) -> Question {
    Question {
        kind: QuestionKind::Detect,
        tests: TestFilter(tests.to_vec()),
        runs: Runs::Fixed(RUNS),
        order: None,
        budget: None,
        panel: Vec::new(),
        rerun: None,
        ..like
    }
}

/// How a probation stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probation {
    /// So many clean runs of the test that has fewest.
    Running(u64),
    /// All were clean.
    Proven,
    /// A test has failed again.
    Failed(String),
    /// The runs ended before they were enough.
    Ended(u64),
}

impl Probation {
    /// What a report says of the mended tests.
    pub fn of(report: &Report, tests: &[String], ended: bool) -> Self {
        let known = |id: &String| report.tests.iter().find(|test| test.id == *id);
        if let Some(failed) = tests.iter().find(|id| known(id).is_some_and(|test| test.failures > 0)) {
            return Probation::Failed(failed.clone());
        }
        let clean = tests.iter().map(|id| known(id).map_or(0, |test| test.attempts)).min().unwrap_or(0);
        if clean >= u64::from(RUNS.get()) {
            Probation::Proven
        } else if ended {
            Probation::Ended(clean)
        } else {
            Probation::Running(clean)
        }
    }

    /// For people.
    pub fn words(&self) -> String {
        match self {
            Probation::Running(clean) => format!("on probation, {clean} of {RUNS} clean"),
            Probation::Proven => "proven".to_owned(),
            Probation::Failed(test) => format!("not proven: {test} failed again"),
            Probation::Ended(clean) => format!("probation ended after {clean} of {RUNS} clean"),
        }
    }

    /// The state of a repair whose probation is over; none if it goes on. One that has relapsed is not waited for.
    pub fn conclusion(&self) -> Option<RepairState> {
        match self {
            Probation::Running(_) => None,
            Probation::Proven => Some(RepairState::Proven),
            Probation::Failed(_) => Some(RepairState::Relapsed),
            Probation::Ended(_) => Some(RepairState::Unproven),
        }
    }
}
