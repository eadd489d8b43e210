//! Whether the farm itself can be trusted: what a sweep of tests whose answers are known said of it.

use serde::{Deserialize, Serialize};

/// What a control said of the farm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// In a word.
    pub state: TrustState,
    /// Tests that are known to be flaky.
    pub flaky: u32,
    /// How many of them it found.
    pub found: u32,
    /// Tests that are known not to be.
    pub stable: u32,
    /// How many of them it said something else of than what they are.
    pub accused: u32,
    /// Flaky tests that it did not find.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missed: Vec<String>,
    /// Stable tests that it accused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wronged: Vec<String>,
    /// Stable tests that it said nothing of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unanswered: Vec<String>,
    /// The sweep of the known tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<String>,
    /// Why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Whether a farm is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrustState {
    /// It found what is flaky and accused nothing else.
    Trusted,
    /// It did not.
    NotTrusted,
    /// Its control could not say.
    Unknown,
    /// Its control still runs, or something that a newer program knows.
    #[serde(other)]
    Pending,
}
