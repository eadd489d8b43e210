//! What one sweep may ask for. A coordinator plans for everybody: what would take more memory or jobs
//! than the operator allows is refused, with a hint, before anything is planned.

use super::git_source::GitSource;
use super::{Coordinator, EngineError};
use crate::db::DbError;
use crate::plan::{Question, QuestionKind, Runs};
use flakefarm_project::fetch::FetchLimits;
use flakefarm_shared::{Digest, Refusal};

/// Most that one project may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Attempts that are planned and have not ended: beyond, no sweep is taken, and running ones plan no more.
    pub queued_attempts: u64,
    /// Jobs on the queue or in workers' hands: beyond, jobs wait.
    pub running_jobs: u64,
    /// Bytes of snapshots: beyond, none is taken.
    pub stored_bytes: u64,
}

impl Quotas {
    /// None at all.
    pub const NONE: Quotas =
        Quotas { queued_attempts: u64::MAX, running_jobs: u64::MAX, stored_bytes: u64::MAX };
    /// Of a farm, unless its operator says otherwise.
    pub const FARM: Quotas =
        Quotas { queued_attempts: 5_000_000, running_jobs: 10_000, stored_bytes: 100 << 30 };
}

/// A project has as much as it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuotaExceeded {
    /// Attempts.
    #[error("the project `{project}` has {queued} attempts queued, of {quota} that it may have")]
    Attempts {
        /// Whose.
        project: String,
        /// How many it has.
        queued: u64,
        /// How many it may have.
        quota: u64,
    },
    /// Bytes.
    #[error("the project `{project}` would store {} MiB, of {} MiB that it may", stored >> 20, quota >> 20)]
    Bytes {
        /// Whose.
        project: String,
        /// How much it would be.
        stored: u64,
        /// How much it may be.
        quota: u64,
    },
}

impl QuotaExceeded {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            QuotaExceeded::Attempts { .. } => {
                "wait for running sweeps, or cancel some: flakefarm sweeps --in-state running; the operator's \
                 setting is --quota-attempts"
            }
            QuotaExceeded::Bytes { .. } => {
                "snapshots are collected when nothing has referred to them for a while (flakefarm gc); the \
                 operator's setting is --quota-bytes"
            }
        }
    }
}

impl Coordinator {
    /// Whether a project may have more attempts queued.
    pub(super) async fn may_queue(&self, project: &str) -> Result<Result<(), QuotaExceeded>, DbError> {
        let quota = self.quotas.queued_attempts;
        if quota == u64::MAX {
            return Ok(Ok(()));
        }
        let queued = self.db.queued_attempts(project).await?;
        let exceeded = || QuotaExceeded::Attempts { project: project.to_owned(), queued, quota };
        Ok(if queued < quota { Ok(()) } else { Err(exceeded()) })
    }

    /// Whether a project may store so many bytes more.
    pub async fn may_store(&self, project: &str, bytes: u64) -> Result<Result<(), QuotaExceeded>, DbError> {
        let quota = self.quotas.stored_bytes;
        if quota == u64::MAX {
            return Ok(Ok(()));
        }
        let stored = self.db.stored_bytes(project).await?.saturating_add(bytes);
        let exceeded = || QuotaExceeded::Bytes { project: project.to_owned(), stored, quota };
        Ok(if stored <= quota { Ok(()) } else { Err(exceeded()) })
    }

    /// Counts a snapshot towards what a project stores, if there is room; once, however often it comes.
    pub(super) async fn charge(
        &self,
        project: &str,
        snapshot: &Digest,
    ) -> Result<Result<(), QuotaExceeded>, EngineError> {
        if self.quotas.stored_bytes == u64::MAX {
            return Ok(Ok(()));
        }
        let (bytes, _) = self.blobs.stream(snapshot).await?;
        let projects = [project.to_owned()];
        if !self.db.may_read_blob(&projects, snapshot).await?
            && let Err(exceeded) = self.may_store(project, bytes).await?
        {
            return Ok(Err(exceeded));
        }
        self.db.charge_blob(&projects, snapshot, bytes).await?;
        Ok(Ok(()))
    }
}

/// What is fetched for schedules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetching {
    /// How much, and for how long.
    pub limits: FetchLimits,
    /// The hosts that are asked, a leading `*.` for all below; none: all.
    pub hosts: Option<Vec<String>>,
}

impl Fetching {
    /// Whether a source's host is asked.
    pub(super) fn allows(&self, source: &GitSource) -> bool {
        let Some(hosts) = &self.hosts else { return true };
        let Some(host) = source.remote.host() else { return false };
        hosts.iter().any(|allowed| match allowed.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
            None => *allowed == host,
        })
    }
}

/// Most that one sweep may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs of each test.
    pub runs: u32,
    /// Runs of all tests together; and attempts of long sweeps that are kept in memory at a time.
    pub samples: u64,
    /// Tests.
    pub tests: usize,
}

impl Limits {
    /// Of a farm, unless its operator says otherwise.
    pub const FARM: Limits = Limits { runs: 10_000, samples: 1_000_000, tests: 200_000 };
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
                "select fewer tests with --tests, or ask for fewer --runs; several sweeps may share the work; the \
                 operator's setting is --limit-samples"
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
