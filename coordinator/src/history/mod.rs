//! What is known of a project's tests over time: what makes it count, what CI adds to it, what remains of
//! it when points have expired, and what it answers.

pub mod aggregate;
pub mod collect;
pub mod fingerprint;
pub mod ingest;
pub mod questions;
pub mod retention;
