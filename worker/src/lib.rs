//! Takes a job, prepares the environment, runs attempts in fresh sandboxes and pushes samples.
//! Knows no HTTP and no SQL.

mod attempt;
pub mod conditions;
pub mod environment;
pub mod frameworks;
mod job;
mod machine;
mod runner;
pub mod sandbox;

pub use runner::{Ending, WorkerParts, run};
