//! What to run next: a pure function of the question, the ledger, what was known beforehand and the
//! time that has passed. No clock, no I/O, no randomness but what the question's seed gives.
//!
//! The engine calls [`plan`] whenever something was heard, persists the jobs it returns, notes them
//! in the ledger, publishes them, and stops at [`Planning::Complete`]. Planning twice from the same
//! ledger gives the same jobs under the same names.

mod adaptive;
mod alone;
pub mod answers;
mod batch;
mod beliefs;
pub mod budget;
mod chains;
mod costs;
pub mod fixed;
mod funds;
pub mod history;
pub mod ledger;
pub mod level;
mod needs;
mod panel;
pub mod question;
mod repeats;
#[cfg(test)]
mod simulation;
mod slots;
pub mod worlds;

pub use answers::{Answers, SuiteNumbers, TestAnswer, affords_one_round, answers};
pub use budget::Budget;
pub use history::{Flaked, History, PastRun, Record, RunCounts, TestHistory};
pub use ledger::{Condition, ConditionCount, Ledger, Observation, Seen, SeenFailure, Tally};
pub use level::{SandboxChoice, UnknownSandbox};
pub use needs::Answer;
pub use panel::{Panel, UnknownPanel};
pub use question::{
    Confidence, Guarantee, Question, QuestionError, QuestionKind, Rate, Runs, ScopeChoice, TestFilter,
};

pub use worlds::WorldsSeen;

use flakefarm_shared::AttemptSpec;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What to run next. `history` is what was known when the sweep was submitted and stays the same for
/// all of it; `elapsed` is the time since then, which matters only to a budget on the clock. What a
/// question of causes needs does not depend on either.
pub fn plan(question: &Question, ledger: &Ledger, history: &History, elapsed: Duration) -> Plan {
    let planned = match (&question.kind, question.runs) {
        (QuestionKind::Detect, Runs::Fixed(_)) => fixed::plan(question, ledger, history),
        (QuestionKind::Detect, Runs::Adaptive) => adaptive::plan(question, ledger, history, elapsed),
        (QuestionKind::Diagnose { .. }, _) => crate::diagnose::plan(question, ledger),
        (QuestionKind::Bisect(request), _) => crate::diagnose::bisect::plan(question, request, ledger),
    };
    level::assign(question, ledger, planned)
}

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
    /// Its name, unique within the sweep; see [`flakefarm_shared::JobId::derive`].
    pub key: String,
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

/// The file of a test: its id up to the first `::`.
pub fn file_of(test: &flakefarm_shared::TestId) -> &str {
    test.as_str().split_once("::").map_or(test.as_str(), |(file, _)| file)
}

/// A number that depends on the sweep's seed and on what it is for, and on nothing else.
pub(crate) fn derive_seed(seed: u64, label: &str) -> u64 {
    use sha2::{Digest as _, Sha256};
    let hash = Sha256::digest(format!("{seed}:{label}"));
    u64::from_be_bytes(hash[..8].try_into().expect("a SHA-256 has 32 bytes"))
}
