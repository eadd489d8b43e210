//! Whether two arms fail at different rates, looked at after every run: a Bayes factor of two rates
//! against one, held against a bar that the number of comparisons raises.

use crate::plan::Confidence;
use statrs::function::beta::ln_beta;
use std::num::NonZeroU32;

/// Passes and failures of one arm; skips are neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Passes and failures.
    pub(super) attempts: u32,
    /// Failures.
    pub(super) failures: u32,
}

impl Counts {
    /// Failures per attempt; 0 without attempts.
    pub(super) fn rate(self) -> f64 {
        f64::from(self.failures) / f64::from(self.attempts.max(1))
    }
}

/// What two arms show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Judgement {
    /// Their rates differ, with this confidence.
    Different {
        /// One minus the risk that the difference is chance, all comparisons considered.
        confidence: f64,
    },
    /// Undecided; so many times likelier to differ than to be alike.
    Open {
        /// The Bayes factor.
        factor: f64,
    },
}

/// A comparison among several that are made at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Comparison {
    confidence: Confidence,
    arms: NonZeroU32,
}

impl Comparison {
    /// One of `arms` comparisons that are to be right together with `confidence`.
    pub(super) fn new(confidence: Confidence, arms: NonZeroU32) -> Self {
        Self { confidence, arms }
    }

    /// Compares an arm with its baseline.
    pub(super) fn judge(self, baseline: Counts, arm: Counts) -> Judgement {
        let factor = ln_bayes_factor(baseline, arm).exp();
        let arms = f64::from(self.arms.get());
        if factor >= arms / self.confidence.risk() {
            Judgement::Different { confidence: 1.0 - (arms / factor).min(1.0) }
        } else {
            Judgement::Open { factor }
        }
    }
}

/// Logarithm of how much better two rates explain the counts than one, each with a Beta(1/2, 1/2)
/// prior.
fn ln_bayes_factor(one: Counts, other: Counts) -> f64 {
    let split = |counts: Counts| {
        (f64::from(counts.failures) + 0.5, f64::from(counts.attempts - counts.failures) + 0.5)
    };
    let ((a1, b1), (a2, b2)) = (split(one), split(other));
    ln_beta(a1, b1) + ln_beta(a2, b2) - ln_beta(0.5, 0.5) - ln_beta(a1 + a2 - 0.5, b1 + b2 - 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(arms: u32, one: (u32, u32), other: (u32, u32)) -> Judgement {
        let counts = |(failures, attempts)| Counts { attempts, failures };
        Comparison::new(Confidence::DEFAULT, NonZeroU32::new(arms).unwrap()).judge(counts(one), counts(other))
    }

    #[test]
    fn more_comparisons_want_more_runs() {
        assert!(matches!(judge(1, (0, 4), (4, 4)), Judgement::Different { .. }));
        assert!(matches!(judge(20, (0, 4), (4, 4)), Judgement::Open { .. }));
        assert!(matches!(judge(20, (0, 6), (6, 6)), Judgement::Different { .. }));
    }

    #[test]
    fn alike_arms_stay_open_and_lose_ground() {
        let Judgement::Open { factor } = judge(1, (5, 10), (5, 10)) else { panic!("alike") };
        assert!(factor < 1.0, "{factor}");
        let Judgement::Open { factor } = judge(1, (0, 0), (0, 0)) else { panic!("nothing") };
        assert!((factor - 1.0).abs() < 1e-12, "{factor}");
    }
}
