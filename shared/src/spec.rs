//! What one attempt is asked for: which tests, in which order, on which sources and in which world, and how it is
//! isolated.

use crate::detail::Detail;
use crate::ids::TestId;
use crate::treatment::Treatment;
use crate::world::SandboxLevel;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One attempt to be made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttemptSpec {
    /// Its place among the job's attempts: with the job id, the idempotency key of its samples.
    pub index: u32,
    /// What one attempt runs.
    pub scope: Scope,
    /// Which tests.
    pub tests: Selection,
    /// In which order.
    pub order: Order,
    /// On which sources, in which world.
    #[serde(default, rename = "world")]
    pub treatment: Treatment,
    /// How the attempt is isolated.
    #[serde(default)]
    pub level: SandboxLevel,
    /// How much the attempt tells beside outcomes.
    #[serde(default, skip_serializing_if = "Detail::is_outcomes")]
    pub detail: Detail,
}

impl AttemptSpec {
    /// The first attempt of a job, with nothing changed around the tests, in a container of its own.
    pub fn plain(scope: Scope, tests: Selection, order: Order) -> Self {
        Self {
            index: 0,
            scope,
            tests,
            order,
            treatment: Treatment::PLAIN,
            level: SandboxLevel::Container,
            detail: Detail::Outcomes,
        }
    }
}

/// How much one attempt runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One test, alone.
    Test,
    /// One file.
    File,
    /// The whole selection.
    Suite,
}

/// Which tests an attempt runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// Everything the framework collects.
    All,
    /// These. The given order is the order the framework collected them in; [`Order::AsListed`] is
    /// this list's. Shared: a sweep asks for the same tests in many attempts.
    Only(Arc<[TestId]>),
}

impl Selection {
    /// These tests.
    pub fn only(tests: Vec<TestId>) -> Self {
        Selection::Only(tests.into())
    }
}

/// The order tests run in within one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As the framework collected them.
    Given,
    /// Last first.
    Reversed,
    /// Shuffled by this seed: sorted by SHA-256 of `"<seed>:<test id>"`, so that the relative order
    /// of two tests does not depend on what else is selected, in any language.
    Shuffled {
        /// The seed.
        seed: u64,
    },
    /// As [`Selection::Only`] lists them; as collected where everything is selected.
    AsListed,
}
