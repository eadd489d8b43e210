//! Histories whose truth is known, to judge forecasts by: months of a project in which tests are healthy,
//! flaky at a steady rate, flaky for a while, broken by changes and mended after some days. A seed names one.

use super::dice;
use crate::history::forecast::{Evaluation, Forecaster, Known, LEARNING_DAYS, Ran};
use rand::RngExt as _;

/// What a project is like.
#[derive(Debug, Clone, Copy)]
pub struct Project {
    /// Tests.
    pub tests: u32,
    /// Days.
    pub days: i64,
    /// Runs a day.
    pub runs: u64,
}

/// Failure rates of flaky tests, by quantiles of 811 flaky tests with 10,000 runs each (Alshammari et al. 2021).
const RATES: [f64; 8] = [0.0001, 0.0004, 0.002, 0.0071, 0.03, 0.16, 0.3, 0.55];
/// The share of tests that are flaky.
const FLAKY: f64 = 0.036;
/// The share of tests that a day's change touches.
const TOUCHED: f64 = 0.01;
/// The share of touched tests that break.
const BREAKS: f64 = 0.05;
/// The chance that a broken test is mended on a day.
const MENDED: f64 = 0.4;

struct Test {
    rate: f64,
    /// Days on which it is flaky.
    from: i64,
    to: i64,
    broken: bool,
}

/// How forecasts do on such a project.
pub fn evaluate(project: Project, seed: u64) -> Evaluation {
    let mut dice = dice(seed, "histories");
    let mut tests: Vec<Test> = (0..project.tests)
        .map(|_| {
            let rate = if dice.random_bool(FLAKY) { RATES[dice.random_range(0..RATES.len())] } else { 0.0 };
            let steady = dice.random_bool(0.5);
            let from = if steady { 0 } else { dice.random_range(0..project.days) };
            let to = if steady { project.days } else { from + dice.random_range(5..60) };
            Test { rate, from, to, broken: false }
        })
        .collect();
    let mut known: Vec<Known> = vec![Known::default(); tests.len()];
    let mut forecaster = Forecaster::default();
    for day in 0..project.days {
        let judged = day >= LEARNING_DAYS;
        for (test, known) in tests.iter_mut().zip(&mut known) {
            let touched = dice.random_bool(TOUCHED);
            if touched && dice.random_bool(BREAKS) {
                test.broken = true;
            } else if test.broken && dice.random_bool(MENDED) {
                test.broken = false;
            }
            let rate = match test.broken {
                true => 1.0,
                false if (test.from..test.to).contains(&day) => test.rate,
                false => 0.0,
            };
            let failures = match rate {
                0.0 => 0,
                1.0 => project.runs,
                rate => (0..project.runs).filter(|_| dice.random_bool(rate)).count() as u64,
            };
            forecaster.day(known, Ran { runs: project.runs, failures, touched }, judged);
        }
        forecaster.end_day(judged);
    }
    forecaster.evaluation()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeded: the same each time.
    #[test]
    fn forecasts_have_skill_over_what_costs_nothing() {
        let evaluation = evaluate(Project { tests: 1_000, days: 60, runs: 5 }, 1);
        assert_eq!(evaluation.withheld(), None, "{evaluation:?}");
        assert!(evaluation.skill_over_moving_rate > 0.02, "{evaluation:?}");
        assert!(evaluation.pr_auc > 10.0 * evaluation.base_rate, "{evaluation:?}");
        assert!(evaluation.calibration_error < 0.005, "{evaluation:?}");
    }
}
