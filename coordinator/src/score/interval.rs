//! How much a number of runs proves: clean-run arguments and an interval that may be looked at
//! after every run.

use crate::experiment::certainty::clean_runs_needed;
use crate::experiment::{Confidence, Rate};
use serde::{Deserialize, Serialize};
use statrs::function::beta::ln_beta;

/// A failure rate and the interval that covers it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateEstimate {
    /// Failures over attempts; 0 without attempts.
    pub estimate: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// The probability that the interval covers the rate, at every number of runs at once.
    pub confidence: f64,
}

/// Clean runs after which a fix is proved, with `confidence`, for a test that failed at `before` or more:
/// the smallest m with (1 - before)^m <= 1 - confidence. `before` is the lower end of the old rate's
/// interval, so that the proof holds for every rate that the old counts leave open; none if that is 0:
/// then no number of clean runs shows a difference.
pub fn clean_runs_for_fix(before: &RateEstimate, confidence: Confidence) -> Option<u32> {
    if before.lower >= 1.0 {
        return Some(1);
    }
    Rate::new(before.lower).ok().map(|lower| clean_runs_needed(lower, confidence))
}

/// The rate below which a test fails, with `confidence`, that passed all of `runs` runs:
/// 1 - (1 - confidence)^(1/runs). 1 after no run.
pub fn upper_bound_after_clean_runs(runs: impl Into<f64>, confidence: Confidence) -> f64 {
    let runs = runs.into();
    if runs <= 0.0 { 1.0 } else { -(confidence.risk().ln() / runs).exp_m1() }
}

/// The failure rates that `failures` in `attempts` do not rule out, however the number of attempts
/// was chosen: the anytime-valid interval from a Beta(1/2, 1/2) mixture.
pub fn rate_interval(failures: u32, attempts: u32, confidence: Confidence) -> RateEstimate {
    assert!(failures <= attempts, "failures are attempts");
    let wrap = |estimate, lower, upper| RateEstimate { estimate, lower, upper, confidence: confidence.get() };
    if attempts == 0 {
        return wrap(0.0, 0.0, 1.0);
    }
    let (k, n) = (f64::from(failures), f64::from(attempts));
    let mixture = ln_beta(0.5 + k, 0.5 + n - k) - ln_beta(0.5, 0.5);
    let bar = mixture + confidence.risk().ln();
    let inside = |p: f64| log_likelihood(k, n, p) > bar;
    let estimate = k / n;
    // The likelihood rises up to the estimate and falls after it, so each end is one bisection.
    let lower = if failures == 0 { 0.0 } else { bisect(0.0, estimate, inside) };
    let upper = if failures == attempts { 1.0 } else { bisect(1.0, estimate, inside) };
    wrap(estimate, lower, upper)
}

/// ln(p^k (1-p)^(n-k)), with 0 ln 0 = 0.
pub(super) fn log_likelihood(k: f64, n: f64, p: f64) -> f64 {
    let failures = if k == 0.0 { 0.0 } else { k * p.ln() };
    let passes = if n - k == 0.0 { 0.0 } else { (n - k) * (-p).ln_1p() };
    failures + passes
}

/// Where the way from `outside` to `inside_end` enters the interval, rounded outwards.
fn bisect(mut outside: f64, mut inside_end: f64, inside: impl Fn(f64) -> bool) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (outside + inside_end);
        if middle == outside || middle == inside_end {
            break;
        }
        if inside(middle) {
            inside_end = middle;
        } else {
            outside = middle;
        }
    }
    outside
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::documented::{percent, rows};
    use proptest::prelude::*;
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    fn confidence(value: f64) -> Confidence {
        Confidence::new(value).unwrap()
    }

    #[test]
    fn clean_runs_are_as_documented() {
        for row in rows("Clean runs needed") {
            let rate = Rate::new(percent(&row[0])).unwrap();
            for (cell, sure) in row[1..].iter().zip([0.90, 0.95, 0.99]) {
                let expect: u32 = cell.replace(',', "").parse().unwrap();
                assert_eq!(clean_runs_needed(rate, confidence(sure)), expect, "{row:?}");
            }
        }
    }

    #[test]
    fn fixes_are_proved_as_documented() {
        for row in rows("Proving a fix") {
            let before =
                RateEstimate { estimate: 1.0, lower: percent(&row[0]), upper: 1.0, confidence: 0.95 };
            for (cell, sure) in row[1..].iter().zip([0.90, 0.95, 0.99]) {
                assert_eq!(clean_runs_for_fix(&before, confidence(sure)), cell.parse().ok(), "{row:?}");
            }
        }
        let seldom = rate_interval(1, 30, Confidence::DEFAULT);
        assert!(clean_runs_for_fix(&seldom, Confidence::DEFAULT).unwrap() > 1_000);
        assert_eq!(clean_runs_for_fix(&rate_interval(0, 30, Confidence::DEFAULT), Confidence::DEFAULT), None);
    }

    #[test]
    fn bounds_after_clean_runs_are_as_documented() {
        for row in rows("What clean runs prove") {
            let runs: u32 = row[0].replace(',', "").parse().unwrap();
            let fixed = upper_bound_after_clean_runs(runs, Confidence::DEFAULT);
            let anytime = rate_interval(0, runs, Confidence::DEFAULT).upper;
            for (cell, value) in row[1..].iter().zip([fixed, anytime]) {
                assert!((percent(cell) - value).abs() < 0.000_05, "{row:?}: {value}");
            }
        }
    }

    #[test]
    fn intervals_are_as_documented() {
        for row in rows("The rate interval") {
            let (failures, attempts) = row[0].split_once(" of ").unwrap();
            let count = |text: &str| text.replace(',', "").parse().unwrap();
            let found = rate_interval(count(failures), count(attempts), Confidence::DEFAULT);
            for (cell, value) in row[1..].iter().zip([found.lower, found.upper]) {
                assert!((percent(cell) - value).abs() < 0.000_5, "{row:?}: {found:?}");
            }
        }
    }

    #[test]
    fn interval_covers_the_rate_however_the_number_of_runs_is_chosen() {
        // Looks after every run and counts a miss anywhere; the sharpest stopping rule there is.
        const RUNS: u32 = 200;
        const SEQUENCES: u32 = 2_000;
        let intervals: Vec<Vec<RateEstimate>> =
            (0..=RUNS).map(|n| (0..=n).map(|k| rate_interval(k, n, Confidence::DEFAULT)).collect()).collect();
        let mut dice = ChaCha8Rng::seed_from_u64(7);
        for rate in [0.01, 0.1, 0.5, 0.9] {
            let mut missed = 0;
            for _ in 0..SEQUENCES {
                let mut failures = 0;
                let misses = (1..=RUNS).any(|n| {
                    failures += usize::from(dice.random_bool(rate));
                    let interval = intervals[n as usize][failures];
                    rate < interval.lower || rate > interval.upper
                });
                missed += u32::from(misses);
            }
            assert!(f64::from(missed) <= 0.05 * f64::from(SEQUENCES), "{rate}: {missed} of {SEQUENCES}");
        }
    }

    #[test]
    fn a_million_runs_are_no_problem() {
        let none = rate_interval(0, 1_000_000, Confidence::DEFAULT);
        assert!(none.lower == 0.0 && none.upper > 0.0 && none.upper < 0.000_02, "{none:?}");
        let half = rate_interval(500_000, 1_000_000, Confidence::DEFAULT);
        assert!(half.lower > 0.497 && half.upper < 0.503, "{half:?}");
        let all = rate_interval(1_000_000, 1_000_000, Confidence::DEFAULT);
        assert!(all.upper == 1.0 && all.lower > 0.999_98, "{all:?}");
        assert_eq!(upper_bound_after_clean_runs(0, Confidence::DEFAULT), 1.0);
    }

    proptest! {
        #[test]
        fn interval_contains_the_estimate_and_is_symmetric(
            attempts in 1_u32..100_000, share in 0.0..=1.0_f64, sure in 0.5..0.999_f64,
        ) {
            let failures = (f64::from(attempts) * share) as u32;
            let sure = confidence(sure);
            let found = rate_interval(failures, attempts, sure);
            prop_assert!(0.0 <= found.lower && found.lower <= found.estimate);
            prop_assert!(found.estimate <= found.upper && found.upper <= 1.0);
            let mirrored = rate_interval(attempts - failures, attempts, sure);
            prop_assert!((mirrored.lower - (1.0 - found.upper)).abs() < 1e-9);
            let surer = rate_interval(failures, attempts, confidence(sure.get() + 0.000_9));
            prop_assert!(surer.lower <= found.lower && surer.upper >= found.upper);
            if failures < attempts {
                let more = rate_interval(failures + 1, attempts, sure);
                prop_assert!(more.lower >= found.lower - 1e-12 && more.upper >= found.upper - 1e-12);
            }
        }

        #[test]
        fn clean_runs_are_the_fewest_that_prove_it(rate in 0.000_02..0.99_f64, sure in 0.01..0.999_f64) {
            let (rate, sure) = (Rate::new(rate).unwrap(), confidence(sure));
            let runs = clean_runs_needed(rate, sure);
            prop_assert!(upper_bound_after_clean_runs(runs, sure) <= rate.get() + 1e-9);
            prop_assert!(upper_bound_after_clean_runs(runs - 1, sure) > rate.get() - 1e-9);
        }
    }
}
