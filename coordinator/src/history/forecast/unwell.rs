//! What is known of one test that has failed: a mixture of decayed Beta posteriors, and the facts about its last
//! days by which [`super::pooled`] corrects it. Pure.

/// Half-lives of posteriors, in runs.
pub const HALF_LIVES: [f64; 3] = [5.0, 20.0, 100.0];
/// Days of a test that the moving rate is of.
const MOVING: usize = 10;
/// Weight that moves between experts at each step, so that none is ever lost.
const SHARE: f64 = 0.02;
/// Weight of what is known of other tests, in runs.
const PRIOR: f64 = 1.0;

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

impl Ran {
    /// Failures per run.
    pub(super) fn share(self) -> f64 {
        if self.runs == 0 { 0.0 } else { self.failures as f64 / self.runs as f64 }
    }
}

/// Beta counts: failures and passes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) failures: f64,
    pub(super) passes: f64,
}

impl Counts {
    fn mean(self, prior: f64) -> f64 {
        (self.failures + PRIOR * prior) / (self.failures + self.passes + PRIOR)
    }

    pub(super) fn add(&mut self, ran: Ran, keep: f64) {
        self.failures = self.failures * keep + ran.failures as f64;
        self.passes = self.passes * keep + (ran.runs - ran.failures) as f64;
    }
}

/// Experts: one per half-life, one without, one by the last day.
const EXPERTS: usize = HALF_LIVES.len() + 2;
/// Facts about a test.
pub(super) const FACTS: usize = 8;

/// What is known of a test that has failed.
#[derive(Debug, Clone)]
pub(super) struct Unwell {
    decayed: [Counts; HALF_LIVES.len() + 1],
    after: [Counts; 2],
    weights: [f64; EXPERTS],
    /// Its last days, a ring.
    moving: [Ran; MOVING],
    days: usize,
    /// Days since it failed last; none: it did on the last day.
    clean_days: u32,
    /// Days up to the last one on which nothing passed.
    red_days: u32,
}

impl Unwell {
    pub(super) fn new() -> Self {
        Self {
            decayed: [Counts::default(); HALF_LIVES.len() + 1],
            after: [Counts::default(); 2],
            weights: [1.0 / EXPERTS as f64; EXPERTS],
            moving: [Ran { runs: 0, failures: 0, touched: false }; MOVING],
            days: 0,
            clean_days: 0,
            red_days: 0,
        }
    }

    fn last(&self) -> Ran {
        self.moving[self.days.wrapping_sub(1) % MOVING]
    }

    fn experts(&self, prior: f64) -> [f64; EXPERTS] {
        let mut means = [0.0; EXPERTS];
        for (mean, counts) in means.iter_mut().zip(&self.decayed) {
            *mean = counts.mean(prior);
        }
        means[EXPERTS - 1] = self.after[usize::from(self.last().failures > 0)].mean(prior);
        means
    }

    fn mixture(&self, prior: f64) -> f64 {
        self.experts(prior).iter().zip(&self.weights).map(|(mean, weight)| mean * weight).sum()
    }

    /// What a forecast of the next run rests on: log odds of the mixture, and facts about the last days. `prior`
    /// is how often tests of the project fail that have failed before.
    pub(super) fn facts(&self, prior: f64, touched: bool) -> [f64; FACTS] {
        let last = self.last();
        let failed = last.failures > 0;
        [
            1.0,
            log_odds(self.mixture(prior)),
            log_odds(self.decayed[HALF_LIVES.len()].mean(prior)),
            f64::from(u8::from(failed && last.failures < last.runs)),
            if failed { log_odds(last.share().clamp(0.01, 0.99)) } else { 0.0 },
            f64::from(1 + self.clean_days).ln(),
            f64::from(self.red_days.max(1)).ln(),
            f64::from(u8::from(touched)),
        ]
    }

    pub(super) fn learn(&mut self, ran: Ran, prior: f64) {
        // A day is one observation, however many runs it had: they share revisions and surroundings.
        let likelihood = |mean: f64| {
            let mean = mean.clamp(1e-6, 1.0 - 1e-6);
            ran.share() * mean.ln() + (1.0 - ran.share()) * (1.0 - mean).ln()
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
        self.after[usize::from(self.last().failures > 0)].add(ran, 1.0);
        self.clean_days = if ran.failures > 0 { 0 } else { self.clean_days.saturating_add(1) };
        self.red_days = if ran.failures == ran.runs { self.red_days.saturating_add(1) } else { 0 };
        self.moving[self.days % MOVING] = ran;
        self.days += 1;
    }

    /// Failures per run of the last days.
    pub(super) fn moving_rate(&self) -> f64 {
        let sum = |sum: Ran, day: &Ran| Ran {
            runs: sum.runs + day.runs,
            failures: sum.failures + day.failures,
            touched: false,
        };
        self.moving.iter().fold(Ran { runs: 0, failures: 0, touched: false }, sum).share()
    }

    /// Failures per run of the last day.
    pub(super) fn last_rate(&self) -> f64 {
        self.last().share()
    }
}

fn log_odds(chance: f64) -> f64 {
    let chance = chance.clamp(1e-4, 1.0 - 1e-4);
    (chance / (1.0 - chance)).ln()
}
