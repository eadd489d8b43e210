//! What is known of a project's tests over time: what makes it count, what CI adds to it, what remains of
//! it when points have expired, and what it answers.

pub mod aggregate;
pub mod changes;
pub mod collect;
pub mod columns;
mod excluded;
pub mod failing;
pub mod fingerprint;
pub mod forecast;
pub mod ingest;
pub mod linking;
pub mod moves;
pub mod questions;
pub mod recovery;
pub mod renames;
pub mod retention;
pub mod together;
