//! What diagnosis makes of a comparison of two arms: how sure a difference is, or how much speaks for
//! it so far.

use crate::experiment::{Confidence, Counts};
use crate::score::{Comparison, Decision};
use std::num::NonZeroU32;

/// What two arms show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Judgement {
    /// Their rates differ, with this confidence.
    Different {
        /// One minus the risk that the difference is chance, all comparisons considered.
        confidence: f64,
    },
    /// Undecided, or alike.
    Open {
        /// The evidence for a difference: an e-value.
        evidence: f64,
        /// As of a difference, though it is less than was asked for; 0 where nothing speaks for one.
        confidence: f64,
    },
}

/// One of several comparisons that are to be right together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparing {
    comparison: Comparison,
    risk: f64,
}

impl Comparing {
    /// One of `arms` comparisons.
    pub(super) fn new(confidence: Confidence, arms: NonZeroU32) -> Self {
        Self { comparison: Comparison::new(confidence, arms), risk: confidence.risk() }
    }

    /// Compares an arm with its baseline.
    pub(super) fn judge(self, baseline: Counts, arm: Counts) -> Judgement {
        let decision = self.comparison.judge(baseline, arm);
        let found = decision.difference();
        // The risk of so much evidence by chance, among all comparisons.
        let confidence = (1.0 - self.risk * found.needed / found.evidence).max(0.0);
        match decision {
            Decision::Differs(_) => Judgement::Different { confidence },
            Decision::Same(_) | Decision::Open(_) => Judgement::Open { evidence: found.evidence, confidence },
        }
    }
}

/// Failures per attempt; 0 without attempts.
pub(super) fn rate(counts: Counts) -> f64 {
    counts.rate().unwrap_or_default()
}
