//! Takes a job, prepares the environment, runs attempts in fresh sandboxes and pushes samples.
//! Knows no SQL, and of HTTP what a health check speaks.

mod attempt;
pub mod ceilings;
pub mod conditions;
mod delivery;
pub mod environment;
mod finished;
pub mod frameworks;
mod health;
mod job;
mod listing;
mod machine;
mod permission;
mod runner;
pub mod sandbox;
mod side;
mod spool;
mod state;
mod trace;
mod user;

pub use runner::{WorkerParts, run};
pub use spool::Spool;
pub use state::Ending;
