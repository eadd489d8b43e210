//! Does a patch mend a test? Two arms that differ in their sources only: as submitted, and with the
//! patch; the same tests in the same company and world, in turns. Beside them the suite runs once on
//! either, so that no neighbour that passed before fails with the patch. Pure: what to run next and what
//! is shown so far are functions of the question and the ledger.

mod case;
mod judge;
mod neighbours;
mod planner;
#[cfg(test)]
mod simulation;

use crate::experiment::{Ledger, Question, ValidateRequest};
use flakefarm_shared::TestId;

pub use judge::{Answer, ArmCounts, Neighbour, NeighbourState, Validation, Why, judge};
pub use planner::plan;

/// The tests that the patch is to mend: those that were named; where none is, those that were seen to fail
/// as submitted.
pub fn targets(question: &Question, request: &ValidateRequest, ledger: &Ledger) -> Vec<TestId> {
    neighbours::targets(question, &request.tests, ledger)
}
