//! How likely a test is to fail when it runs next, from what was known before; and whether that is worth
//! telling. Pure, deterministic, one pass over days in the order of time.
//!
//! A test that never failed is judged by all of its kind: the chance of a first failure per run, pooled over
//! the project, apart for tests that a pending change touches (a symbol they use is altered; where nobody
//! knows, none is). One that has failed is judged by a mixture of decayed Beta posteriors: half-lives of
//! [`HALF_LIVES`] runs and one that never forgets, and posteriors apart by what the last day was, each weighted by
//! how well it has foretold this test so far (fixed share, Herbster and Warmuth 1998).
//!
//! Judged prequentially (Dawid 1984): each day is foretold before it is learnt from, against three forecasts that
//! cost nothing (always pass, as last time, the rate of the last ten days). What has no skill over all of
//! them is not shown to anybody; accuracy is not computed at all, since always passing would win.

use serde::{Deserialize, Serialize};

/// Half-lives of posteriors, in runs.
pub const HALF_LIVES: [f64; 3] = [5.0, 20.0, 100.0];
/// Days of a test that the moving rate is of.
const MOVING: usize = 10;
/// Weight that moves between experts at each step, so that none is ever lost.
const SHARE: f64 = 0.02;
/// Weight of what is known of other tests, in runs.
const PRIOR: f64 = 1.0;
/// Failures that a judgement rests on at least.
const FEWEST_FAILURES: u64 = 50;
/// Days that a judgement rests on at least.
const FEWEST_DAYS: u64 = 14;
/// Days that are only learnt from.
pub const LEARNING_DAYS: i64 = 7;

/// A day of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ran {
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
    /// Whether a change touches what the test uses, as far as was known before.
    pub touched: bool,
}

/// Beta counts: failures and passes.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    failures: f64,
    passes: f64,
}

impl Counts {
    fn mean(self, prior: f64) -> f64 {
        (self.failures + PRIOR * prior) / (self.failures + self.passes + PRIOR)
    }

    fn add(&mut self, ran: Ran, keep: f64) {
        self.failures = self.failures * keep + ran.failures as f64;
        self.passes = self.passes * keep + (ran.runs - ran.failures) as f64;
    }
}

/// Experts: one per half-life, one without, one by the last day.
const EXPERTS: usize = HALF_LIVES.len() + 2;

/// What is known of one test.
#[derive(Debug, Clone, Default)]
pub struct Known(Option<Box<Unwell>>);

/// Of one that has failed.
#[derive(Debug, Clone)]
struct Unwell {
    decayed: [Counts; HALF_LIVES.len() + 1],
    after: [Counts; 2],
    weights: [f64; EXPERTS],
    last_failed: bool,
    /// Runs and failures of its last days, a ring.
    moving: [(u64, u64); MOVING],
    days: usize,
}

impl Unwell {
    fn new() -> Self {
        Self {
            decayed: [Counts::default(); HALF_LIVES.len() + 1],
            after: [Counts::default(); 2],
            weights: [1.0 / EXPERTS as f64; EXPERTS],
            last_failed: false,
            moving: [(0, 0); MOVING],
            days: 0,
        }
    }

    fn experts(&self, prior: f64) -> [f64; EXPERTS] {
        let mut means = [0.0; EXPERTS];
        for (mean, counts) in means.iter_mut().zip(&self.decayed) {
            *mean = counts.mean(prior);
        }
        means[EXPERTS - 1] = self.after[usize::from(self.last_failed)].mean(prior);
        means
    }

    fn foretell(&self, prior: f64) -> f64 {
        self.experts(prior).iter().zip(&self.weights).map(|(mean, weight)| mean * weight).sum()
    }

    fn learn(&mut self, ran: Ran, prior: f64) {
        let likelihood = |mean: f64| {
            let mean = mean.clamp(1e-6, 1.0 - 1e-6);
            ran.failures as f64 * mean.ln() + (ran.runs - ran.failures) as f64 * (1.0 - mean).ln()
        };
        let likelihoods = self.experts(prior).map(likelihood);
        let most = likelihoods.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for (weight, likelihood) in self.weights.iter_mut().zip(likelihoods) {
            *weight *= (likelihood - most).exp();
        }
        let sum: f64 = self.weights.iter().sum();
        for weight in &mut self.weights {
            *weight = *weight / sum * (1.0 - SHARE) + SHARE / EXPERTS as f64;
        }
        for (counts, half_life) in self.decayed.iter_mut().zip(HALF_LIVES) {
            counts.add(ran, 0.5f64.powf(ran.runs as f64 / half_life));
        }
        self.decayed[HALF_LIVES.len()].add(ran, 1.0);
        self.after[usize::from(self.last_failed)].add(ran, 1.0);
        self.last_failed = ran.failures > 0;
        self.moving[self.days % MOVING] = (ran.runs, ran.failures);
        self.days += 1;
    }

    fn moving_rate(&self) -> f64 {
        let (runs, failures) =
            self.moving.iter().fold((0, 0), |(runs, failures), day| (runs + day.0, failures + day.1));
        if runs == 0 { 0.0 } else { failures as f64 / runs as f64 }
    }

    fn last_rate(&self) -> f64 {
        let Some(last) = self.days.checked_sub(1) else { return 0.0 };
        let (runs, failures) = self.moving[last % MOVING];
        if runs == 0 { 0.0 } else { failures as f64 / runs as f64 }
    }
}

/// What a project has taught so far.
#[derive(Debug, Clone, Default)]
pub struct Forecaster {
    /// First failures and clean runs before them, of tests that no change touches and of those that one does.
    first: [Counts; 2],
    /// Runs of tests that have failed before.
    unwell: Counts,
    /// How it did.
    scores: Scores,
}

impl Forecaster {
    /// How likely a test is to fail in its next run.
    pub fn foretell(&self, known: &Known, touched: bool) -> f64 {
        match &known.0 {
            None => self.first_failure(touched),
            Some(unwell) => unwell.foretell(self.prior()),
        }
    }

    fn first_failure(&self, touched: bool) -> f64 {
        let counts = self.first[usize::from(touched)];
        (counts.failures + 0.05) / (counts.failures + counts.passes + 10.0)
    }

    fn prior(&self) -> f64 {
        (self.unwell.failures + 0.5) / (self.unwell.failures + self.unwell.passes + 2.0)
    }

    /// Foretells a day of a test, is judged by it if `judged`, and learns from it.
    pub fn day(&mut self, known: &mut Known, ran: Ran, judged: bool) {
        if ran.runs == 0 {
            return;
        }
        if judged {
            let (last, moving) =
                known.0.as_ref().map_or((0.0, 0.0), |unwell| (unwell.last_rate(), unwell.moving_rate()));
            self.scores.add(self.foretell(known, ran.touched), [0.0, last, moving], ran);
        }
        let prior = self.prior();
        if let Some(unwell) = &mut known.0 {
            unwell.learn(ran, prior);
            self.unwell.add(ran, 1.0);
            return;
        }
        // A day is one occasion for a first failure, however many of its runs failed.
        let first = &mut self.first[usize::from(ran.touched)];
        first.passes += (ran.runs - ran.failures) as f64;
        if ran.failures > 0 {
            first.failures += ran.failures as f64;
            let mut unwell = Unwell::new();
            unwell.learn(ran, prior);
            known.0 = Some(Box::new(unwell));
        }
    }

    /// Ends a day of the project.
    pub fn end_day(&mut self, judged: bool) {
        self.scores.days += u64::from(judged);
    }

    /// How it did so far.
    pub fn evaluation(&self) -> Evaluation {
        self.scores.evaluation()
    }
}

/// Bins of forecasts, by their upper ends.
const BINS: [f64; 10] = [0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0];
/// Steps of forecasts for precision and recall, by logarithm.
const STEPS: usize = 400;

#[derive(Debug, Clone)]
struct Scores {
    days: u64,
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
    fn add(&mut self, forecast: f64, baselines: [f64; 3], ran: Ran) {
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

    fn evaluation(&self) -> Evaluation {
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
        if self.failures < FEWEST_FAILURES || self.days < FEWEST_DAYS {
            return Some(format!(
                "too little to judge forecasts by: {} failures on {} days, {FEWEST_FAILURES} and {FEWEST_DAYS} are needed",
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

    fn ran(runs: u64, failures: u64) -> Ran {
        Ran { runs, failures, touched: false }
    }

    #[test]
    fn what_failed_lately_is_foretold_to_fail() {
        let mut forecaster = Forecaster::default();
        let (mut healthy, mut flaky, mut broken, mut mended) =
            (Known::default(), Known::default(), Known::default(), Known::default());
        for day in 0..60 {
            forecaster.day(&mut healthy, ran(20, 0), true);
            forecaster.day(&mut flaky, ran(20, 4), true);
            forecaster.day(&mut broken, ran(20, if day > 50 { 20 } else { 0 }), true);
            forecaster.day(&mut mended, ran(20, if day < 20 { 20 } else { 0 }), true);
            forecaster.end_day(true);
        }
        let p = |known: &Known| forecaster.foretell(known, false);
        assert!(p(&healthy) < 0.02, "{}", p(&healthy));
        assert!((0.15..0.25).contains(&p(&flaky)), "{}", p(&flaky));
        assert!(p(&broken) > 0.9, "{}", p(&broken));
        assert!(p(&mended) < 0.05, "{}", p(&mended));
        let evaluation = forecaster.evaluation();
        assert_eq!((evaluation.days, evaluation.runs), (60, 4_800));
        assert!(evaluation.skill_over_always_pass > 0.5, "{evaluation:?}");
    }

    #[test]
    fn what_has_no_skill_is_withheld() {
        let mut forecaster = Forecaster::default();
        let mut test = Known::default();
        for day in 0..100u64 {
            // As last time is always right but once.
            let failures = if day < 50 { 0 } else { 20 };
            forecaster.day(&mut test, ran(20, failures), day >= 7);
            forecaster.end_day(day >= 7);
        }
        let evaluation = forecaster.evaluation();
        assert!(evaluation.skill_over_last_outcome <= 0.0, "{evaluation:?}");
        assert!(evaluation.withheld().unwrap().contains("no skill"));
        assert!(Forecaster::default().evaluation().withheld().unwrap().contains("too little"));
    }

    #[test]
    fn the_area_is_one_for_those_who_know_and_the_base_rate_for_those_who_do_not() {
        let mut knows = Scores::default();
        let mut guesses = Scores::default();
        for run in 0..100 {
            let failed = run % 4 == 0;
            knows.add(if failed { 0.9 } else { 0.1 }, [0.0; 3], ran(1, u64::from(failed)));
            guesses.add(0.5, [0.0; 3], ran(1, u64::from(failed)));
        }
        assert!((knows.evaluation().pr_auc - 1.0).abs() < 1e-9);
        assert!((guesses.evaluation().pr_auc - 0.25).abs() < 1e-9);
        assert!((guesses.evaluation().calibration_error - 0.25).abs() < 1e-9);
    }

    #[test]
    fn touched_tests_are_a_kind_of_their_own() {
        let mut forecaster = Forecaster::default();
        for test in 0..400 {
            let touched = test % 4 == 0;
            let failed = touched && test % 8 == 0;
            forecaster.day(
                &mut Known::default(),
                Ran { runs: 1, failures: u64::from(failed), touched },
                true,
            );
        }
        let fresh = Known::default();
        assert!(forecaster.foretell(&fresh, true) > 0.3 && forecaster.foretell(&fresh, false) < 0.01);
    }
}
