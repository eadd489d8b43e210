//! What is known of a project's tests over time: what makes it count, and what is read from it.

pub mod fingerprint;
