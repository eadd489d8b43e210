//! Takes a job, prepares the environment, runs attempts in fresh sandboxes and pushes samples.
//! Knows no HTTP and no SQL.

mod attempt;
pub mod ceilings;
pub mod conditions;
mod delivery;
pub mod environment;
mod finished;
pub mod frameworks;
mod job;
mod listing;
mod machine;
mod permission;
mod runner;
mod samples;
pub mod sandbox;
mod spool;
mod user;

pub use runner::{Ending, WorkerParts, run};
pub use spool::Spool;
