//! How failure rates are spread over tests: what is believed of a test before it runs, and what is
//! left to believe after clean runs. A grid of rates with atoms at "never" and "always"; one Beta
//! fits the published rates badly.
//!
//! Starts from published rates and is fitted to what a project's tests did, by expectation
//! maximisation.

use crate::experiment::{Rate, RunCounts};
use serde::{Deserialize, Serialize};

/// Share of tests that flake at whatever rate, and that always fail, in the published data.
const PUBLISHED_FLAKY: f64 = 811.0 / 22_245.0;
const PUBLISHED_ALWAYS: f64 = 147.0 / 22_245.0;
/// Upper ends of bins of failure rates, and the share of flaky tests in each.
const PUBLISHED_BINS: [(f64, f64); 7] =
    [(1e-4, 0.12), (1e-3, 0.21), (1e-2, 0.22), (5e-2, 0.18), (0.1, 0.01), (0.5, 0.12), (1.0, 0.14)];
/// Share of the spread that is even over the logarithm of the rate: other languages and kinds of
/// flakiness are not those that were published.
const EVEN: f64 = 0.25;
/// Lowest rate of the grid, and points per tenfold.
const LOWEST: f64 = 1e-4;
const PER_DECADE: f64 = 8.0;
/// Rates above one half.
const HIGH: [f64; 6] = [0.6, 0.7, 0.8, 0.9, 0.95, 0.98];
/// So many tests' worth of belief in the published spread.
const PSEUDO_TESTS: f64 = 500.0;
const EM_ROUNDS: usize = 25;

/// A spread of failure rates over tests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FailureRates {
    /// Rates of flaky tests, rising, and the share of all tests at each.
    grid: Vec<(f64, f64)>,
    /// Share of tests that never fail.
    never: f64,
    /// Share of tests that always fail.
    always: f64,
}

impl FailureRates {
    /// Those of Alshammari et al. (FlakeFlagger, 2021), a quarter of them spread evenly.
    pub fn published() -> Self {
        let mut rates: Vec<f64> = (0..)
            .map(|step| LOWEST * 10_f64.powf(f64::from(step) / PER_DECADE))
            .take_while(|r| *r < 0.55)
            .collect();
        rates.extend(HIGH);
        let bin = |rate: f64| {
            PUBLISHED_BINS.iter().position(|(end, _)| rate <= end * (1.0 + 1e-9)).expect("rates are below 1")
        };
        let in_bin = |wanted: usize| rates.iter().filter(|rate| bin(**rate) == wanted).count() as f64;
        let even = 1.0 / rates.len() as f64;
        let grid = rates
            .iter()
            .map(|rate| {
                let published = PUBLISHED_BINS[bin(*rate)].1 / in_bin(bin(*rate));
                (*rate, PUBLISHED_FLAKY * ((1.0 - EVEN) * published + EVEN * even))
            })
            .collect();
        Self { grid, never: 1.0 - PUBLISHED_FLAKY - PUBLISHED_ALWAYS, always: PUBLISHED_ALWAYS }
    }

    /// The published rates, fitted to what tests did: expectation maximisation of the posterior mode,
    /// the published spread counting as much as so many tests.
    #[must_use]
    pub fn fitted(counts: &[RunCounts]) -> Self {
        let start = Self::published();
        let ran: Vec<&RunCounts> = counts.iter().filter(|c| c.attempts > 0 && c.tests > 0).collect();
        if ran.is_empty() {
            return start;
        }
        let likelihoods: Vec<Vec<f64>> = ran.iter().map(|c| start.likelihoods(c)).collect();
        let prior = start.shares();
        let tests: f64 = ran.iter().map(|c| f64::from(c.tests)).sum();
        let mut shares = prior.clone();
        for _ in 0..EM_ROUNDS {
            let mut sums: Vec<f64> = prior.iter().map(|share| share * PSEUDO_TESTS).collect();
            for (counts, likelihood) in ran.iter().zip(&likelihoods) {
                let total: f64 = shares.iter().zip(likelihood).map(|(share, l)| share * l).sum();
                if total > 0.0 {
                    let scale = f64::from(counts.tests) / total;
                    for ((sum, share), l) in sums.iter_mut().zip(&shares).zip(likelihood) {
                        *sum += scale * share * l;
                    }
                }
            }
            let whole = PSEUDO_TESTS + tests;
            shares = sums.into_iter().map(|sum| sum / whole).collect();
        }
        start.with_shares(&shares)
    }

    /// For a test whose odds of being flaky are `factor` times the average's.
    #[must_use]
    pub fn with_odds(&self, factor: f64) -> Self {
        let whole = self.never + self.always + factor * self.flaky();
        Self {
            grid: self.grid.iter().map(|(rate, share)| (*rate, factor * share / whole)).collect(),
            never: self.never / whole,
            always: self.always / whole,
        }
    }

    /// Share of tests that flake, at whatever rate.
    pub fn flaky(&self) -> f64 {
        self.grid.iter().map(|(_, share)| share).sum()
    }

    /// Share of tests that flake at `rate` or more.
    pub fn flaky_from(&self, rate: Rate) -> f64 {
        self.missed(rate, 0.0)
    }

    /// Share of tests that flake at `rate` or more and pass `clean` runs all the same.
    pub fn missed(&self, rate: Rate, clean: f64) -> f64 {
        self.from(rate).map(|(r, share)| share * pass(r, clean)).sum()
    }

    /// Share of tests that flake, at whatever rate, pass `clean` runs and fail the next.
    pub fn first_failure_next(&self, clean: f64) -> f64 {
        self.grid.iter().map(|(r, share)| share * pass(*r, clean) * r).sum()
    }

    /// Probability that a test that passed all of `clean` runs flakes at `rate` or more.
    pub fn risk(&self, rate: Rate, clean: f64) -> f64 {
        self.missed(rate, clean) / self.clean(clean)
    }

    /// Probability that a test that passed all of `clean` runs flakes at all.
    pub fn risk_at_all(&self, clean: f64) -> f64 {
        let flaky: f64 = self.grid.iter().map(|(r, share)| share * pass(*r, clean)).sum();
        flaky / self.clean(clean)
    }

    /// Probability that a test that failed all of `failures` runs passes at `rate` or more.
    pub fn risk_of_broken(&self, rate: Rate, failures: f64) -> f64 {
        let fail = |r: f64| if failures == 0.0 { 1.0 } else { r.powf(failures) };
        let every: f64 = self.grid.iter().map(|(r, share)| share * fail(*r)).sum();
        let passing =
            self.grid.iter().filter(|(r, _)| *r <= 1.0 - rate.get()).map(|(r, share)| share * fail(*r));
        passing.sum::<f64>() / (every + self.always)
    }

    fn clean(&self, clean: f64) -> f64 {
        self.never + self.grid.iter().map(|(r, share)| share * pass(*r, clean)).sum::<f64>()
    }

    fn from(&self, rate: Rate) -> impl Iterator<Item = (f64, f64)> + '_ {
        // A grid point that is the rate but for rounding flakes at the rate.
        let least = rate.get() * (1.0 - 1e-9);
        self.grid.iter().copied().filter(move |(r, _)| *r >= least)
    }

    fn shares(&self) -> Vec<f64> {
        let grid = self.grid.iter().map(|(_, share)| *share);
        grid.chain([self.never, self.always]).collect()
    }

    fn with_shares(mut self, shares: &[f64]) -> Self {
        for ((_, share), new) in self.grid.iter_mut().zip(shares) {
            *share = *new;
        }
        self.never = shares[self.grid.len()];
        self.always = shares[self.grid.len() + 1];
        self
    }

    /// Likelihoods of the counts at each place of [`Self::shares`], up to a common factor.
    fn likelihoods(&self, counts: &RunCounts) -> Vec<f64> {
        let (k, n) = (f64::from(counts.failures), f64::from(counts.attempts));
        let logs: Vec<f64> = self.grid.iter().map(|(r, _)| k * r.ln() + (n - k) * (-r).ln_1p()).collect();
        let never = if counts.failures == 0 { 0.0 } else { f64::NEG_INFINITY };
        let always = if counts.failures == counts.attempts { 0.0 } else { f64::NEG_INFINITY };
        let most = logs.iter().copied().fold(never.max(always), f64::max);
        logs.into_iter().chain([never, always]).map(|log| (log - most).exp()).collect()
    }
}

fn pass(rate: f64, runs: f64) -> f64 {
    (runs * (-rate).ln_1p()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::documented::{percent, rows};

    fn rate(value: f64) -> Rate {
        Rate::new(value).unwrap()
    }

    #[test]
    fn risks_after_clean_runs_are_as_documented() {
        let rates = FailureRates::published();
        for row in rows("The suite's guarantee") {
            let clean: f64 = row[0].replace(',', "").parse().unwrap();
            let missed = |p| rates.missed(rate(p), clean) / rates.flaky_from(rate(p));
            let found =
                [rates.risk(rate(0.05), clean), missed(0.05), rates.risk(rate(0.01), clean), missed(0.01)];
            for (cell, value) in row[1..].iter().zip(found) {
                assert!((percent(cell) - value).abs() < 0.000_5, "{row:?}: {found:?}");
            }
        }
    }

    #[test]
    fn shares_are_shares() {
        for rates in [
            FailureRates::published(),
            FailureRates::published().with_odds(7.0),
            FailureRates::fitted(&[RunCounts { attempts: 40, failures: 3, tests: 900 }]),
        ] {
            let whole: f64 = rates.shares().iter().sum();
            assert!((whole - 1.0).abs() < 1e-9, "{whole}");
            assert!(rates.shares().iter().all(|share| (0.0..=1.0).contains(share)));
        }
        let (one, other) = (FailureRates::published(), FailureRates::published().with_odds(3.0));
        let odds = |rates: &FailureRates| rates.flaky() / (rates.never + rates.always);
        assert!((odds(&other) / odds(&one) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_project_with_other_rates_is_learnt() {
        // A fifth of the tests fail in every tenth run, the others never.
        let counts = [
            RunCounts { attempts: 60, failures: 0, tests: 1_600 },
            RunCounts { attempts: 60, failures: 4, tests: 130 },
            RunCounts { attempts: 60, failures: 6, tests: 140 },
            RunCounts { attempts: 60, failures: 8, tests: 130 },
        ];
        let rates = FailureRates::fitted(&counts);
        let around: f64 =
            rates.grid.iter().filter(|(r, _)| (0.05..0.2).contains(r)).map(|(_, share)| share).sum();
        assert!((around - 400.0 / 2_500.0).abs() < 0.02, "{around}");
        // What was never seen to be different stays as published.
        assert_eq!(FailureRates::fitted(&[]), FailureRates::published());
    }

    #[test]
    fn clean_runs_only_ever_reassure() {
        let rates = FailureRates::published();
        let mut before = (1.0, 1.0, 1.0);
        for clean in 0..300 {
            let clean = f64::from(clean);
            let now = (
                rates.risk(rate(0.05), clean),
                rates.risk_at_all(clean),
                rates.risk_of_broken(rate(0.05), clean),
            );
            assert!(now.0 < before.0 && now.1 < before.1 && now.2 < before.2);
            before = now;
        }
    }
}
