//! Plans, publishes, collects, scores, remembers and answers. Sole owner of relational state.

pub mod db;
pub mod diagnose;
pub mod engine;
pub mod events;
pub mod http;
pub mod plan;
pub mod report;
pub mod score;

pub use engine::{Coordinator, Submission};

/// An error and its causes on one line: the one place that joins them.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
