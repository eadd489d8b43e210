//! What is left of a sweep's budget, and what it is spent on when it does not pay for everything.

use super::beliefs::Beliefs;
use super::costs::Costs;
use crate::experiment::{Budget, Estimate, Ledger, PlannedJob, Question, Standing};
use flakefarm_shared::Scope;
use std::time::Duration;

/// Steps of bisection over the logarithm of a price.
const PRICE_STEPS: usize = 30;
/// What counts as spent when no more is left than a start of a sandbox takes.
const NOTHING: f64 = 1e-9;

/// What is left, what is under way taken off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Funds {
    Unlimited,
    Attempts(u64),
    /// Container seconds; whether they end with the clock, and whether that has run out.
    Seconds {
        left: f64,
        clock: Clock,
        first: First,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clock {
    Stands,
    Runs,
    IsOver,
}

/// Whether anything was bought yet: the first attempt is made even if nobody knows what it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    NotYet,
    Bought,
}

impl Funds {
    pub(super) fn left(question: &Question, ledger: &Ledger, costs: &Costs<'_>, elapsed: Duration) -> Self {
        let mut planned = false;
        let (mut under_way, mut seconds) = (0_u64, 0.0);
        for attempt in ledger.each_attempt() {
            planned = true;
            if attempt.standing == Standing::Outstanding {
                under_way += 1;
                seconds += attempt.spec.and_then(|spec| costs.of(spec)).unwrap_or(0.0);
            }
        }
        let first = if planned { First::Bought } else { First::NotYet };
        match question.budget {
            None => Funds::Unlimited,
            Some(Budget::Attempts(number)) => {
                Funds::Attempts(number.get().saturating_sub(ledger.attempts() + under_way))
            }
            Some(Budget::Container(time)) => Funds::Seconds {
                left: time.as_secs_f64() - ledger.container_seconds() - seconds,
                clock: Clock::Stands,
                first,
            },
            Some(Budget::Clock(time)) => {
                let left = time.as_secs_f64() - elapsed.as_secs_f64();
                Funds::Seconds {
                    left: left * f64::from(question.workers.get()) - seconds,
                    clock: if left > 0.0 { Clock::Runs } else { Clock::IsOver },
                    first,
                }
            }
        }
    }

    /// Whether the time on the clock is over.
    pub(super) fn is_overdue(&self) -> bool {
        matches!(self, Funds::Seconds { clock: Clock::IsOver, .. })
    }

    /// Pays for an attempt, if there is enough. What it costs may not be known: then it is bought as
    /// long as anything is left.
    pub(super) fn buy(&mut self, seconds: Option<f64>) -> bool {
        match self {
            Funds::Unlimited => true,
            Funds::Attempts(left) => {
                let enough = *left > 0;
                *left = left.saturating_sub(1);
                enough
            }
            Funds::Seconds { left, clock, first } => {
                let price = seconds.unwrap_or(0.0);
                // On the clock, unknown attempts at once cost no more than one; in containers they do.
                let blindly = seconds.is_none() && *clock == Clock::Stands && *first == First::Bought;
                let enough = match first {
                    First::NotYet => *clock != Clock::IsOver,
                    First::Bought => *left > NOTHING && price <= *left && !blindly,
                };
                if enough {
                    *left -= price;
                    *first = First::Bought;
                }
                enough
            }
        }
    }

    /// Takes off what attempts will cost that are bought at a later turn, as far as there is as much.
    pub(super) fn put_aside(&mut self, later: Estimate) {
        match self {
            Funds::Unlimited => {}
            Funds::Attempts(left) => *left = left.saturating_sub(later.attempts),
            Funds::Seconds { left, .. } => *left = (*left - later.container_seconds).max(0.0),
        }
    }

    /// Pays for all attempts of a job, or for none.
    pub(super) fn buy_job(&mut self, job: &PlannedJob, costs: &Costs<'_>) -> bool {
        let mut rest = *self;
        let enough = job.attempts.iter().all(|spec| rest.buy(costs.of(spec)));
        if enough {
            *self = rest;
        }
        enough
    }

    /// The runs that can be paid for, of those that are wanted: where they take most off the expected
    /// number of missed flaky tests for what they cost.
    pub(super) fn affordable(&self, wants: &[u32], beliefs: &Beliefs, costs: &Costs<'_>) -> Vec<u32> {
        let seconds = match self {
            Funds::Unlimited => return wants.to_vec(),
            Funds::Attempts(left) => {
                let most = u32::try_from(*left).unwrap_or(u32::MAX);
                return wants.iter().map(|want| (*want).min(most)).collect();
            }
            Funds::Seconds { left, .. } => *left,
        };
        let count = wants.iter().filter(|want| **want > 0).count();
        let share_of_start = costs.overhead(Scope::Suite) / count.max(1) as f64;
        let price_of = |place: usize| costs.seconds_at(place) + share_of_start;
        let cost = |runs: &dyn Fn(usize) -> u32| -> f64 {
            (0..wants.len())
                .filter(|place| wants[*place] > 0)
                .map(|place| f64::from(runs(place)) * price_of(place))
                .sum()
        };
        if cost(&|place| wants[place]) <= seconds {
            return wants.to_vec();
        }
        // The first run of each test comes first: nothing is known of one that never ran.
        let at = |price: f64, place: usize| -> u32 {
            let gain = &beliefs.of(place).gain;
            let worth_it = gain.partition_point(|gain| *gain >= price * price_of(place));
            u32::try_from(worth_it).unwrap_or(u32::MAX).clamp(1, wants[place].max(1)).min(wants[place])
        };
        let (mut low, mut high) = (-40.0_f64, 20.0_f64);
        for _ in 0..PRICE_STEPS {
            let middle = 0.5 * (low + high);
            if cost(&|place| at(middle.exp(), place)) <= seconds { high = middle } else { low = middle }
        }
        (0..wants.len()).map(|place| at(high.exp(), place)).collect()
    }
}
