//! Measures the product and is no part of it: what attempts cost at each level of isolation and in
//! other people's ways (`bench`), and what planner and scorer make of suites whose truth is known
//! (`simulate`). Uses worker and coordinator as they are; nothing uses this but the command line.

mod bench;
mod error;
mod simulate;

pub use bench::{BenchArgs, bench};
pub use error::Unmeasured;
pub use simulate::{SimulateArgs, simulate};

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// As it is to be printed.
    pub text: String,
    /// Whether everything that is claimed holds.
    pub holds: bool,
}
