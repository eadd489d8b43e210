//! Why is a test flaky? Controlled experiments on the same engine as every other question: arms that
//! differ in one condition, compared as attempts come in, until one explains the test. Pure: what to
//! run next and what is known so far are functions of the question and the ledger.

pub mod bisect;
mod cause;
mod compare;
pub mod experiment;
mod investigate;
mod order;
mod planner;
mod search;
mod sequence;
#[cfg(test)]
mod simulation;

pub use crate::experiment::CauseCategory;
pub use cause::{Diagnosis, judge};
pub use planner::plan;
