//! The bench: suites whose truth is known, a farm without containers, and what the real planner and
//! scorer make of them. Pure: a seed names a simulation, to the last number.
//!
//! A bench may look at the truth; planner and scorer are handed only what a real sweep would be.

pub mod attempt;
pub mod bench;
mod chart;
pub mod checks;
pub mod farm;
pub mod histories;
pub mod measure;
pub mod plot;
pub mod population;
pub mod strategies;
pub mod text;

use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};

/// Randomness that depends on the seed and on what it is for, and on nothing else.
fn dice(seed: u64, label: &str) -> ChaCha8Rng {
    ChaCha8Rng::from_seed(Sha256::digest(format!("simulate:{seed}:{label}")).into())
}

/// A step of the SplitMix64 generator: cheap, and every seed gives another sequence.
fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
