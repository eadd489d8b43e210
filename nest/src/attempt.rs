//! What every part of the nest says of an attempt: what it shares with the others of its nest, how it
//! ended, and why it may have no end.

use crate::cell::{CellSpec, Kind};
use crate::memory::Keeper;
use flakefarm_nest::Attempt;
use std::io;

/// Why an attempt has no end.
#[derive(Debug)]
pub(crate) enum NotRun {
    /// Something of ours failed.
    Failed(String),
    /// It cannot be forked; as a fresh attempt it may well run.
    NotForked(String),
    /// The owner has gone.
    Abandoned,
}

impl NotRun {
    pub(crate) fn no_namespaces(error: io::Error) -> Self {
        NotRun::Failed(format!("failed to make namespaces: {error}"))
    }
}

impl From<io::Error> for NotRun {
    fn from(error: io::Error) -> Self {
        NotRun::Failed(error.to_string())
    }
}

/// How an attempt ended, and all of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit_code: i32,
    pub(crate) cpu_us: u64,
}

/// What attempts of one nest have in common.
#[derive(Debug)]
pub(crate) struct NestSettings {
    /// Where the project's tree lies.
    pub(crate) tree: &'static str,
    pub(crate) shared_network: bool,
    /// Who keeps the memory limit; `None` if nobody can tell what came of it.
    pub(crate) keeper: Option<Keeper>,
    /// How many capabilities the kernel knows.
    pub(crate) capabilities: u64,
}

impl NestSettings {
    /// The cell of an attempt.
    pub(crate) fn cell(&self, kind: Kind, attempt: &Attempt) -> CellSpec<'_> {
        CellSpec {
            kind,
            tree: self.tree,
            scratch_bytes: attempt.scratch_bytes,
            pids: attempt.pids,
            shared_network: self.shared_network,
            capabilities: self.capabilities,
        }
    }
}
