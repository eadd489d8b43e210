//! Whether two arms fail at different rates: a sequential test that may be looked at after every
//! run, stopped at any time, and fed with runs of either arm in any order.
//!
//! Source: universal inference (Wasserman, Ramdas and Balakrishnan 2020, *PNAS* 117(29),
//! doi 10.1073/pnas.1922664117) with the Beta mixtures of Robbins (1970): for each rate *p*, the
//! mixture of an arm over its likelihood at *p* is a martingale, so is the product over both arms,
//! and the least of these products over all *p* is an e-process for "both fail at one rate".

use super::interval::{RateEstimate, log_likelihood, rate_interval};
use crate::experiment::{Confidence, Counts};
use serde::{Deserialize, Serialize};
use statrs::function::beta::ln_beta;
use std::num::NonZeroU32;

/// A test of arms against one baseline. With the given confidence, *no* arm that fails at the
/// baseline's rate is ever called different, however often one looks: each arm pays for the number
/// of arms (Bonferroni).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    risk_of_each: f64,
    margin: f64,
}

/// Which way an arm differs from its baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The arm fails more often.
    MoreFailures,
    /// The arm fails less often.
    FewerFailures,
}

/// What the counts say so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The rates differ.
    Differs(Difference),
    /// They differ by less than the comparison's margin, if at all.
    Same(Difference),
    /// More runs are needed.
    Open(Difference),
}

impl Decision {
    /// The numbers behind it.
    pub fn difference(&self) -> &Difference {
        match self {
            Decision::Differs(difference) | Decision::Same(difference) | Decision::Open(difference) => {
                difference
            }
        }
    }

    /// Whether more runs are needed.
    pub fn is_open(&self) -> bool {
        matches!(self, Decision::Open(_))
    }
}

/// How far apart two arms are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Which way the estimates point; none if they are equal or an arm never ran.
    pub direction: Option<Direction>,
    /// Rate of the arm minus rate of the baseline.
    pub estimate: f64,
    /// Lower end of what the difference can be.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// How much better two rates explain the counts than any one rate does: the e-value. At equal
    /// rates it ever reaches x with probability 1/x at most.
    pub evidence: f64,
    /// The evidence from which on rates are called different: arms over risk.
    pub needed: f64,
}

impl Comparison {
    /// Difference of rates below which two arms count as the same, unless chosen otherwise.
    pub const MARGIN: f64 = 0.2;

    /// A comparison of `arms` arms with one baseline.
    pub fn new(confidence: Confidence, arms: NonZeroU32) -> Self {
        Self { risk_of_each: confidence.risk() / f64::from(arms.get()), margin: Self::MARGIN }
    }

    /// With another difference below which arms count as the same; 0: never.
    pub fn with_margin(self, margin: f64) -> Self {
        Self { margin, ..self }
    }

    /// What the counts say. Valid at any time, for arms of any and of different sizes.
    pub fn judge(&self, baseline: Counts, arm: Counts) -> Decision {
        let difference = self.difference(baseline, arm);
        if difference.evidence >= difference.needed {
            Decision::Differs(difference)
        } else if -self.margin < difference.lower && difference.upper < self.margin {
            Decision::Same(difference)
        } else {
            Decision::Open(difference)
        }
    }

    fn difference(&self, baseline: Counts, arm: Counts) -> Difference {
        // Each of the two intervals misses with half of this arm's risk.
        let half = Confidence::new((1.0 - self.risk_of_each / 2.0).min(Confidence::MAX))
            .expect("a risk above 0 leaves a confidence below 1");
        let of = |counts: Counts| -> RateEstimate { rate_interval(counts.failures, counts.attempts, half) };
        let (one, other) = (of(baseline), of(arm));
        let estimate = match (baseline.rate(), arm.rate()) {
            (Some(one), Some(other)) => other - one,
            (None, _) | (_, None) => 0.0,
        };
        Difference {
            direction: if estimate > 0.0 {
                Some(Direction::MoreFailures)
            } else if estimate < 0.0 {
                Some(Direction::FewerFailures)
            } else {
                None
            },
            estimate,
            lower: other.lower - one.upper,
            upper: other.upper - one.lower,
            evidence: ln_evidence(baseline, arm).exp(),
            needed: 1.0 / self.risk_of_each,
        }
    }
}

/// The logarithm of the e-value: two Beta(1/2, 1/2) mixtures over the greatest likelihood of one rate.
fn ln_evidence(one: Counts, other: Counts) -> f64 {
    let mixture = |counts: Counts| {
        let (k, n) = (f64::from(counts.failures), f64::from(counts.attempts));
        ln_beta(0.5 + k, 0.5 + n - k) - ln_beta(0.5, 0.5)
    };
    let k = f64::from(one.failures) + f64::from(other.failures);
    let n = f64::from(one.attempts) + f64::from(other.attempts);
    let together = if n == 0.0 { 0.0 } else { log_likelihood(k, n, k / n) };
    mixture(one) + mixture(other) - together
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    fn comparison(arms: u32) -> Comparison {
        Comparison::new(Confidence::DEFAULT, NonZeroU32::new(arms).unwrap())
    }

    #[test]
    fn comparisons_are_as_documented() {
        for row in crate::score::documented::rows("Comparing arms") {
            let count = |cell: &str| {
                let (failures, attempts) = cell.split_once(" of ").unwrap();
                Counts::new(failures.parse().unwrap(), attempts.parse().unwrap())
            };
            let found = comparison(row[2].parse().unwrap()).judge(count(&row[0]), count(&row[1]));
            let expect: f64 = row[3].replace(',', "").parse().unwrap();
            let evidence = found.difference().evidence;
            assert!((evidence - expect).abs() < 0.05 * expect.max(0.1), "{row:?}: {evidence}");
            let word = match found {
                Decision::Differs(_) => "differs",
                Decision::Same(_) => "same",
                Decision::Open(_) => "open",
            };
            assert_eq!(word, row[4], "{row:?}: {found:?}");
        }
    }

    #[test]
    fn equal_arms_are_seldom_told_apart_however_often_one_looks() {
        // Ten arms of the baseline's own rate, a look after every run of each.
        let (mut dice, suites) = (ChaCha8Rng::seed_from_u64(7), 400);
        for rate in [0.05, 0.3, 0.5, 0.9] {
            let needed = comparison(10).judge(Counts::default(), Counts::default()).difference().needed.ln();
            let mut wrong = 0;
            for _ in 0..suites {
                let mut counts = [Counts::default(); 11];
                let mut accused = false;
                for _ in 0..60 {
                    for arm in 0..counts.len() {
                        counts[arm].attempts += 1;
                        counts[arm].failures += u32::from(dice.random_bool(rate));
                        // As `judge` decides, without the intervals, which take longer.
                        accused |= ln_evidence(counts[0], counts[arm.max(1)]) >= needed;
                    }
                }
                wrong += u32::from(accused);
            }
            assert!(f64::from(wrong) <= 0.05 * f64::from(suites), "{wrong} of {suites} at {rate}");
        }
    }

    #[test]
    fn an_order_that_decides_is_found_in_a_few_runs() {
        let test = comparison(10);
        let runs = (1..).find(|n| !test.judge(Counts::new(0, *n), Counts::new(*n, *n)).is_open()).unwrap();
        assert_eq!(runs, 6);
        let found = test.judge(Counts::new(0, runs), Counts::new(runs, runs));
        assert_eq!(found.difference().direction, Some(Direction::MoreFailures));
        let found = test.judge(Counts::new(runs, runs), Counts::new(0, runs));
        assert_eq!(found.difference().direction, Some(Direction::FewerFailures));
    }

    proptest! {
        #[test]
        fn swapping_arms_turns_the_difference_round(a in 0_u32..60, b in 0_u32..60, m in 1_u32..60, n in 1_u32..60) {
            let (one, other) = (Counts::new(a.min(m), m), Counts::new(b.min(n), n));
            let there = *comparison(3).judge(one, other).difference();
            let back = *comparison(3).judge(other, one).difference();
            prop_assert!((there.evidence - back.evidence).abs() <= 1e-9 * there.evidence);
            prop_assert_eq!((there.lower, there.upper), (-back.upper, -back.lower));
            prop_assert!(there.lower <= there.estimate && there.estimate <= there.upper);
        }
    }
}
