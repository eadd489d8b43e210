//! Failure rates as reports carry them.

use serde::{Deserialize, Serialize};

/// A failure rate with its confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Failures per attempt.
    pub estimate: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Of the interval; it holds at any stopping time.
    pub confidence: f64,
}
