//! How likely a test is to fail when it runs next, from what was known before; and whether that is worth
//! telling. Pure, deterministic, one pass over days in the order of time.
//!
//! A test that never failed is judged by all of its kind: the chance of a first failure per run, pooled over
//! the project, apart for tests that a pending change touches (a symbol they use is altered; where nobody
//! knows, none is). One that has failed is judged by its own record, a mixture of decayed Beta posteriors
//! (half-lives of [`HALF_LIVES`] runs, one that never forgets, one apart by what the last day was), each weighted by
//! how well it has foretold this test so far (fixed share, Herbster and Warmuth 1998); and that is corrected by what
//! all tests of the project that have failed teach, so that a test that has been red once is not
//! taken to stay red where others were mended soon.
//!
//! Judged prequentially (Dawid 1984): each day is foretold before anything of it is learnt, of any test, against
//! three forecasts that cost nothing (always pass, as last time, the rate of the last ten days). What has no skill
//! over all of them is not shown to anybody; accuracy is not computed at all, since always passing would win.

mod judged;
mod pooled;
mod unwell;

pub use judged::{Bin, Evaluation};
pub use unwell::{HALF_LIVES, Ran};

use judged::Scores;
use pooled::Pooled;
use unwell::{Counts, FACTS, Unwell};

/// Days that are only learnt from.
pub const LEARNING_DAYS: i64 = 7;

/// What is known of one test; nothing but that it runs until it fails.
#[derive(Debug, Clone, Default)]
pub struct Known(Option<Box<Unwell>>);

/// What a project has taught so far.
#[derive(Debug, Clone, Default)]
pub struct Forecaster {
    learnt: Learnt,
    pooled: Pooled,
    /// Of the day that is not over yet: it is learnt from when it is.
    today: Today,
    scores: Scores,
}

/// Runs of a project's tests.
#[derive(Debug, Clone, Default)]
struct Learnt {
    /// First failures and clean runs before them, of tests that no change touches and of those that one does.
    first: [Counts; 2],
    /// Runs of tests that have failed before.
    unwell: Counts,
}

#[derive(Debug, Clone, Default)]
struct Today {
    runs: Learnt,
    /// What was known of tests that have failed, and which share of their runs failed.
    facts: Vec<([f64; FACTS], f64)>,
}

impl Forecaster {
    /// How likely a test is to fail in its next run.
    pub fn foretell(&self, known: &Known, touched: bool) -> f64 {
        match &known.0 {
            None => self.first_failure(touched),
            Some(unwell) => self.pooled.chance(&unwell.facts(self.prior(), touched)),
        }
    }

    fn first_failure(&self, touched: bool) -> f64 {
        let counts = self.learnt.first[usize::from(touched)];
        (counts.failures + 0.05) / (counts.failures + counts.passes + 10.0)
    }

    fn prior(&self) -> f64 {
        let unwell = self.learnt.unwell;
        (unwell.failures + 0.5) / (unwell.failures + unwell.passes + 2.0)
    }

    /// Foretells a day of a test, and is judged by it if `judged`; what all tests teach is learnt by
    /// [`Forecaster::end_day`].
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
            self.today.facts.push((unwell.facts(prior, ran.touched), ran.share()));
            unwell.learn(ran, prior);
            self.today.runs.unwell.add(ran, 1.0);
            return;
        }
        self.today.runs.first[usize::from(ran.touched)].add(ran, 1.0);
        if ran.failures > 0 {
            let mut unwell = Unwell::new();
            unwell.learn(ran, prior);
            known.0 = Some(Box::new(unwell));
        }
    }

    /// Ends a day of the project: what it taught is known from now on.
    pub fn end_day(&mut self, judged: bool) {
        self.scores.days += u64::from(judged);
        let today = std::mem::take(&mut self.today);
        for (facts, share) in &today.facts {
            self.pooled.learn(facts, *share);
        }
        let Learnt { first: [untouched, touched], unwell } = &mut self.learnt;
        for (known, news) in [untouched, touched, unwell].into_iter().zip([
            today.runs.first[0],
            today.runs.first[1],
            today.runs.unwell,
        ]) {
            known.failures += news.failures;
            known.passes += news.passes;
        }
    }

    /// How it did so far.
    pub fn evaluation(&self) -> Evaluation {
        self.scores.evaluation()
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
        assert!(p(&broken) > 0.8, "{}", p(&broken));
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
        forecaster.end_day(true);
        let fresh = Known::default();
        assert!(forecaster.foretell(&fresh, true) > 0.3 && forecaster.foretell(&fresh, false) < 0.01);
    }
}
