//! What one sweep may ask for. A coordinator plans for everybody: what would take more memory or jobs
//! than the operator allows is refused, with a hint, before anything is planned.

use crate::plan::{Question, QuestionKind, Runs};
use flakefarm_shared::Refusal;

/// Most that one sweep may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs of each test.
    pub runs: u32,
    /// Runs of all tests together.
    pub samples: u64,
    /// Tests.
    pub tests: usize,
}

impl Limits {
    /// Of a farm, unless its operator says otherwise.
    pub const FARM: Limits = Limits { runs: 10_000, samples: 5_000_000, tests: 200_000 };
    /// Of a sweep in its user's own process, which nobody else waits for.
    pub const EMBEDDED: Limits = Limits { runs: 1_000_000, samples: 50_000_000, tests: 1_000_000 };

    /// Refuses what can be told without knowing the tests.
    pub(super) fn admit(&self, question: &Question) -> Result<(), LimitExceeded> {
        let asked = asked_runs(question);
        if asked > self.runs { Err(LimitExceeded::Runs { asked, limit: self.runs }) } else { Ok(()) }
    }

    /// Refuses what cannot be planned for so many tests.
    pub(super) fn admit_tests(&self, question: &Question, tests: usize) -> Result<(), LimitExceeded> {
        if tests > self.tests {
            return Err(LimitExceeded::Tests { asked: tests, limit: self.tests });
        }
        let asked = u64::from(asked_runs(question)).saturating_mul(tests as u64);
        if asked > self.samples {
            return Err(LimitExceeded::Samples { asked, tests, limit: self.samples });
        }
        Ok(())
    }
}

/// Runs of each test that a question asks for at most.
fn asked_runs(question: &Question) -> u32 {
    match (&question.kind, question.runs) {
        (QuestionKind::Detect, Runs::Fixed(_)) => question.runs_per_test(),
        // Stops by itself as soon as a test is answered; rates that need more are refused as rates.
        (QuestionKind::Detect, Runs::Adaptive) => 0,
        _ => 0,
    }
}

/// More than the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitExceeded {
    /// Of each test.
    #[error("{asked} runs of each test are more than the {limit} that a sweep may ask for here")]
    Runs {
        /// Asked for.
        asked: u32,
        /// Allowed.
        limit: u32,
    },
    /// Of all tests.
    #[error("{asked} runs ({tests} tests) are more than the {limit} that a sweep may ask for here")]
    Samples {
        /// Asked for.
        asked: u64,
        /// The tests.
        tests: usize,
        /// Allowed.
        limit: u64,
    },
    /// Tests.
    #[error("{asked} tests are more than the {limit} that a sweep may have here")]
    Tests {
        /// Selected.
        asked: usize,
        /// Allowed.
        limit: usize,
    },
}

impl LimitExceeded {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            LimitExceeded::Runs { .. } => {
                "ask for fewer with --runs, or leave it out: a sweep then stops as soon as each test is answered"
            }
            LimitExceeded::Samples { .. } | LimitExceeded::Tests { .. } => {
                "select fewer tests with --tests, or ask for fewer --runs; several sweeps may share the work"
            }
        }
    }

    pub(super) fn refusal(&self) -> Refusal {
        Refusal { message: self.to_string(), log: String::new(), hint: Some(self.hint().to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    fn fixed(runs: u32) -> Question {
        Question { runs: Runs::Fixed(NonZeroU32::new(runs).unwrap()), ..Question::detect(1) }
    }

    #[test]
    fn what_cannot_be_planned_is_refused_with_what_can() {
        let limits = Limits { runs: 100, samples: 1_000, tests: 50 };
        assert_eq!(limits.admit(&fixed(100)), Ok(()));
        let refused = limits.admit(&fixed(4_000_000_000)).unwrap_err();
        assert_eq!(refused, LimitExceeded::Runs { asked: 4_000_000_000, limit: 100 });
        assert!(refused.hint().contains("--runs"));
        assert_eq!(limits.admit_tests(&fixed(100), 10), Ok(()));
        assert_eq!(
            limits.admit_tests(&fixed(100), 11),
            Err(LimitExceeded::Samples { asked: 1_100, tests: 11, limit: 1_000 })
        );
        assert_eq!(
            limits.admit_tests(&Question::detect(1), 51),
            Err(LimitExceeded::Tests { asked: 51, limit: 50 })
        );
        assert_eq!(limits.admit_tests(&fixed(u32::MAX), 0), Ok(()));
    }
}
