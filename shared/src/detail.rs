//! What an attempt tells beside outcomes when it is asked to: the output of passing tests, and what
//! each test changed in the process and the files around it.

use crate::ids::{Digest, TestId};
use serde::{Deserialize, Serialize};

/// How much an attempt tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// Outcomes, and the output of failing tests.
    #[default]
    Outcomes,
    /// The output of every test too, and the state it changed. Slower: state is compared before and
    /// after each test.
    State,
}

impl Detail {
    /// Whether nothing beside outcomes is told.
    pub fn is_outcomes(&self) -> bool {
        *self == Detail::Outcomes
    }
}

/// What one test did to the world around it, in one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestDetail {
    /// The test.
    pub test: TestId,
    /// What it printed, as a blob (UTF-8, bounded), whether it passed or failed.
    pub output: Option<Digest>,
    /// What was different after it, bounded, the most telling kinds first.
    pub changes: Vec<StateChange>,
}

/// One difference between the state before a test's set-up and the state after its tear-down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// What kind of state, in words: `module global`, `environment variable`, `working directory`,
    /// `file`, `open handle`, `thread`, `mock`, `locale`, `warnings filter`, `logging`, ... `activity`
    /// is no state but what the test did: threads started, processes started, connections.
    pub kind: String,
    /// Which one: `shop.pricing._discount`.
    pub name: String,
    /// What it was; empty if it was not there.
    pub before: String,
    /// What it is; empty if it is gone.
    pub after: String,
}
