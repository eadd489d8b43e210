//! How long a test takes and how steadily.

use crate::experiment::{Observation, Seen};
use flakefarm_shared::Scope;
use serde::{Deserialize, Serialize};

/// Runs below which a test's timing is not called unsteady.
const RUNS_FOR_INSTABILITY: usize = 5;
/// Relative spread that is ordinary on a busy machine.
const ORDINARY_SPREAD: f64 = 0.25;
/// Added to the median, so that tests of a fraction of a millisecond are not all unsteady.
const TIMER_MS: f64 = 1.0;

/// Durations of a test's runs, in milliseconds of wall-clock time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DurationSummary {
    /// Runs that are summarised: of one scope and, if there are enough, of the quietest workers.
    pub runs: u32,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Mean.
    pub mean: f64,
    /// Coefficient of variation: standard deviation over mean.
    pub cv: f64,
    /// How unsteady, from 0 to 1, robustly: one slow run in ten does not move it.
    pub instability: f64,
}

/// Summarises the runs that can be compared: passes if there are any (a failure ends where it
/// fails), of the scope with most of them (a test alone pays for its file's set-up), under the least
/// concurrency that has at least five.
pub fn summarise(observations: &[&Observation]) -> Option<DurationSummary> {
    let ran = || observations.iter().copied().filter(|o| !matches!(o.seen, Seen::Skip));
    let passes: Vec<&Observation> = ran().filter(|o| matches!(o.seen, Seen::Pass)).collect();
    let comparable = if passes.is_empty() { ran().collect() } else { passes };
    let of_scope = |scope: Scope| comparable.iter().filter(move |o| o.scope == scope);
    // Ties go to the wider scope.
    let scope =
        [Scope::Test, Scope::File, Scope::Suite].into_iter().max_by_key(|scope| of_scope(*scope).count())?;
    let mut classes: Vec<u16> = of_scope(scope).map(|o| o.concurrency).collect();
    classes.sort_unstable();
    // Taking classes from the quietest on until there are enough runs is taking up to the fifth.
    let loudest = *classes.get(RUNS_FOR_INSTABILITY - 1).or(classes.last())?;
    let millis =
        of_scope(scope).filter(|o| o.concurrency <= loudest).map(|o| o.wall_us as f64 / 1e3).collect();
    summary_of(millis)
}

fn summary_of(mut millis: Vec<f64>) -> Option<DurationSummary> {
    if millis.is_empty() {
        return None;
    }
    millis.sort_by(f64::total_cmp);
    let count = millis.len() as f64;
    let mean = millis.iter().sum::<f64>() / count;
    let variance = if millis.len() < 2 {
        0.0
    } else {
        millis.iter().map(|ms| (ms - mean).powi(2)).sum::<f64>() / (count - 1.0)
    };
    Some(DurationSummary {
        runs: u32::try_from(millis.len()).expect("runs are counted in 32 bits"),
        p50: quantile(&millis, 0.5),
        p95: quantile(&millis, 0.95),
        mean,
        cv: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
        instability: instability(&millis),
    })
}

/// Quantile by linear interpolation between order statistics (Hyndman and Fan's type 7).
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = place.ceil() as usize;
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// Relative spread r = 1.4826 MAD / (median + 1 ms), of which 0.25 is ordinary:
/// (r - 0.25) / 0.75 within 0 and 1; 0 below five runs.
fn instability(sorted: &[f64]) -> f64 {
    if sorted.len() < RUNS_FOR_INSTABILITY {
        return 0.0;
    }
    let median = quantile(sorted, 0.5);
    let mut deviations: Vec<f64> = sorted.iter().map(|ms| (ms - median).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let spread = 1.4826 * quantile(&deviations, 0.5) / (median + TIMER_MS);
    ((spread - ORDINARY_SPREAD) / (1.0 - ORDINARY_SPREAD)).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steady_tests_are_steady_and_bimodal_ones_are_not() {
        #[track_caller]
        fn check(millis: &[f64], expect: f64) {
            let summary = summary_of(millis.to_vec()).unwrap();
            assert!((summary.instability - expect).abs() < 0.005, "{millis:?}: {summary:?}");
        }
        check(&[100.0; 10], 0.0);
        // One slow run in ten says nothing of the test.
        check(&[100.0, 101.0, 99.0, 100.0, 102.0, 98.0, 100.0, 101.0, 99.0, 5_000.0], 0.0);
        // Sub-millisecond noise is the timer's.
        check(&[0.1, 0.3, 0.2, 0.4, 0.1, 0.2], 0.0);
        // Half fast, half slow: the median lies between.
        check(&[100.0, 100.0, 100.0, 1_000.0, 1_000.0, 1_000.0], 1.0);
        check(&[1.0, 1_000.0, 10.0, 5_000.0, 100.0], 1.0);
        check(&[1.0, 1_000.0, 10.0, 5_000.0], 0.0);
    }

    #[test]
    fn quantiles_interpolate() {
        let summary = summary_of((1..=21).map(f64::from).collect()).unwrap();
        assert_eq!((summary.p50, summary.p95, summary.mean, summary.runs), (11.0, 20.0, 11.0, 21));
        assert!((summary.cv - 0.564).abs() < 0.001, "{}", summary.cv);
        assert_eq!(summary_of(Vec::new()), None);
    }
}
