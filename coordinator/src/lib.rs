//! Plans, publishes, collects, scores, remembers and answers. Sole owner of relational state.

pub mod db;
pub mod diagnose;
pub mod engine;
pub mod events;
pub mod history;
pub mod http;
pub mod plan;
pub mod report;
pub mod score;
pub mod simulate;

pub use engine::{Coordinator, Submission};
