//! How forecasts did: each is compared with what then was, and with forecasts that cost nothing.

use super::unwell::Ran;
use serde::{Deserialize, Serialize};

/// Failures that a judgement rests on at least.
const FEWEST_FAILURES: u64 = 50;
/// Days that a judgement rests on at least.
const FEWEST_DAYS: u64 = 14;
/// Bins of forecasts, by their upper ends.
const BINS: [f64; 10] = [0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0];
/// Steps of forecasts for precision and recall, by logarithm.
const STEPS: usize = 400;

/// What came of forecasts so far.
#[derive(Debug, Clone)]
pub(super) struct Scores {
    pub(super) days: u64,
    runs: f64,
    failures: u64,
    /// Sums of squared errors: the model's, and the baselines'.
    errors: [f64; 4],
    /// Runs, failures and sums of forecasts.
    bins: [(f64, f64, f64); BINS.len()],
    /// Runs and failures by forecast.
    steps: Vec<(f64, f64)>,
}

impl Default for Scores {
    fn default() -> Self {
        Self {
            days: 0,
            runs: 0.0,
            failures: 0,
            errors: [0.0; 4],
            bins: [(0.0, 0.0, 0.0); BINS.len()],
            steps: vec![(0.0, 0.0); STEPS],
        }
    }
}

impl Scores {
    /// A day of one test, what was foretold of each of its runs, and what the baselines said.
    pub(super) fn add(&mut self, forecast: f64, baselines: [f64; 3], ran: Ran) {
        let (runs, failures) = (ran.runs as f64, ran.failures as f64);
        let error = |p: f64| failures * (1.0 - p).powi(2) + (runs - failures) * p.powi(2);
        self.runs += runs;
        self.failures += ran.failures;
        self.errors[0] += error(forecast);
        for (sum, baseline) in self.errors[1..].iter_mut().zip(baselines) {
            *sum += error(baseline);
        }
        let bin = BINS.partition_point(|end| *end < forecast).min(BINS.len() - 1);
        let (all, failed, sum) = &mut self.bins[bin];
        *all += runs;
        *failed += failures;
        *sum += forecast * runs;
        // From 10^-8 to 1.
        let step = ((forecast.max(1e-8).log10() + 8.0) / 8.0 * (STEPS - 1) as f64).round() as usize;
        let (all, failed) = &mut self.steps[step.min(STEPS - 1)];
        *all += runs;
        *failed += failures;
    }

    pub(super) fn evaluation(&self) -> Evaluation {
        let runs = self.runs.max(1.0);
        let brier = self.errors[0] / runs;
        let skill = |error: f64| if error > 0.0 { 1.0 - self.errors[0] / error } else { 0.0 };
        let bin = |(end, (runs, failures, sum)): (&f64, &(f64, f64, f64))| {
            (*runs > 0.0).then(|| Bin {
                up_to: *end,
                runs: *runs as u64,
                foretold: sum / runs,
                failed: failures / runs,
            })
        };
        let calibration: Vec<Bin> = BINS.iter().zip(&self.bins).filter_map(bin).collect();
        let off = |bin: &Bin| bin.runs as f64 * (bin.foretold - bin.failed).abs();
        Evaluation {
            days: self.days,
            runs: self.runs as u64,
            failures: self.failures,
            brier,
            skill_over_always_pass: skill(self.errors[1]),
            skill_over_last_outcome: skill(self.errors[2]),
            skill_over_moving_rate: skill(self.errors[3]),
            pr_auc: self.average_precision(),
            base_rate: self.failures as f64 / runs,
            calibration_error: calibration.iter().map(off).sum::<f64>() / runs,
            calibration,
        }
    }

    /// The area under precision over recall, as a sum over the steps of recall.
    fn average_precision(&self) -> f64 {
        let all: f64 = self.steps.iter().map(|(_, failed)| failed).sum();
        if all == 0.0 {
            return 0.0;
        }
        let (mut runs, mut failures, mut area) = (0.0, 0.0, 0.0);
        for (step_runs, step_failures) in self.steps.iter().rev() {
            runs += step_runs;
            failures += step_failures;
            if runs > 0.0 {
                area += step_failures / all * (failures / runs);
            }
        }
        area
    }
}

/// How forecasts did on a history, each made before its day was known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Days of the project.
    pub days: u64,
    /// Runs that were foretold.
    pub runs: u64,
    /// Failures among them.
    pub failures: u64,
    /// The mean squared error of the forecasts.
    pub brier: f64,
    /// One less the quotient of Brier scores: 1 is perfect, 0 no better.
    pub skill_over_always_pass: f64,
    /// The same.
    pub skill_over_last_outcome: f64,
    /// The same.
    pub skill_over_moving_rate: f64,
    /// The area under precision over recall; by chance it is [`Evaluation::base_rate`].
    pub pr_auc: f64,
    /// Failures per run.
    pub base_rate: f64,
    /// The mean distance between what was foretold and what was, over bins.
    pub calibration_error: f64,
    /// The bins.
    pub calibration: Vec<Bin>,
}

/// Forecasts of about one size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// The largest.
    pub up_to: f64,
    /// Runs.
    pub runs: u64,
    /// Their mean.
    pub foretold: f64,
    /// The share that failed.
    pub failed: f64,
}

impl Evaluation {
    /// Why forecasts are not shown; none if they are worth it.
    pub fn withheld(&self) -> Option<String> {
        self.withheld_of("failures", "days")
    }

    /// The same where what is foretold are other events than failures, on other occasions than days.
    pub fn withheld_of(&self, failures: &str, days: &str) -> Option<String> {
        if self.failures < FEWEST_FAILURES || self.days < FEWEST_DAYS {
            return Some(format!(
                "too little to judge forecasts by: {} {failures} on {} {days}, {FEWEST_FAILURES} and {FEWEST_DAYS} are needed",
                self.failures, self.days
            ));
        }
        let no_skill = [
            ("always passing", self.skill_over_always_pass),
            ("the last outcome", self.skill_over_last_outcome),
            ("the moving rate", self.skill_over_moving_rate),
        ]
        .into_iter()
        .find(|(_, skill)| *skill <= 0.0);
        no_skill
            .map(|(over, skill)| format!("forecasts have no skill here: {:.1} % over {over}", skill * 100.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_one_for_those_who_know_and_the_base_rate_for_those_who_do_not() {
        let mut knows = Scores::default();
        let mut guesses = Scores::default();
        for run in 0..100 {
            let failed = run % 4 == 0;
            knows.add(
                if failed { 0.9 } else { 0.1 },
                [0.0; 3],
                Ran { runs: 1, failures: u64::from(failed), touched: false },
            );
            guesses.add(0.5, [0.0; 3], Ran { runs: 1, failures: u64::from(failed), touched: false });
        }
        assert!((knows.evaluation().pr_auc - 1.0).abs() < 1e-9);
        assert!((guesses.evaluation().pr_auc - 0.25).abs() < 1e-9);
        assert!((guesses.evaluation().calibration_error - 0.25).abs() < 1e-9);
    }
}
