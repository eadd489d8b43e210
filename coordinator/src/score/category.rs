//! What a flaky test depends on, as far as passes and failures under different orders and scopes
//! show it. Says nothing where chance explains the counts as well.

use crate::experiment::{CauseCategory, Condition, Ledger, Observation, Seen};
use flakefarm_shared::{AttemptSpec, TestId, World};
use serde::{Deserialize, Serialize};
use statrs::function::gamma::ln_gamma;

/// Chance from which on counts are not taken for a difference.
const CHANCE: f64 = 0.05;

/// What a flaky test depends on, as far as detection shows it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// Fails among others, passes alone: another test leaves something behind.
    OrderVictim,
    /// Fails alone, passes among others: another test prepares something.
    OrderBrittle,
    /// Fails in some orders, passes in others.
    OrderDependent,
    /// Passes and fails although nothing was changed.
    NonDeterministic,
    /// Something that was changed around it decides.
    Condition(CauseCategory),
}

impl Category {
    /// The stable word used in reports.
    pub fn word(self) -> &'static str {
        match self {
            Category::OrderVictim => "order_victim",
            Category::OrderBrittle => "order_brittle",
            Category::OrderDependent => "order_dependent",
            Category::NonDeterministic => "non_deterministic",
            Category::Condition(category) => category.word(),
        }
    }
}

/// A category with what speaks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The category.
    pub category: Category,
    /// From 0 to 1; 1 when it was seen, not inferred.
    pub confidence: f64,
    /// One line for each piece of evidence, for people.
    pub evidence: Vec<String>,
    /// The world that changes it, where one does.
    pub world: Option<World>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) attempts: u32,
    pub(super) failures: u32,
}

impl Count {
    pub(super) fn add(&mut self, observation: &Observation) {
        match observation.seen {
            Seen::Pass => self.attempts += 1,
            Seen::Fail(_) => {
                self.attempts += 1;
                self.failures += 1;
            }
            Seen::Skip => {}
        }
    }

    pub(super) fn plus(self, other: Count) -> Count {
        Count { attempts: self.attempts + other.attempts, failures: self.failures + other.failures }
    }

    pub(super) fn varies(self) -> bool {
        self.failures > 0 && self.failures < self.attempts
    }

    pub(super) fn text(self) -> String {
        format!("failed {} of {}", self.failures, self.attempts)
    }
}

/// The category of a test that was seen to pass and to fail.
pub(super) fn categorise(ledger: &Ledger, test: &TestId) -> Option<Finding> {
    let observations: Vec<&Observation> = ledger.plain(test).collect();
    let count = |condition: Condition| {
        let mut count = Count::default();
        observations.iter().filter(|o| o.condition() == condition).for_each(|o| count.add(o));
        count
    };
    let alone = count(Condition::Alone);
    let file = count(Condition::File);
    let by_order = [Condition::Given, Condition::Reversed, Condition::Shuffled].map(|c| (c, count(c)));
    let suite = by_order.iter().fold(Count::default(), |sum, (_, count)| sum.plus(*count));
    // The first test of an attempt on the suite has nothing before it either, though others were collected: where
    // that makes a difference, it does not stand for a run alone.
    let (mut first, mut first_of_all) = (Count::default(), Count::default());
    for observation in observations.iter().filter(|o| o.is_first_of_many()) {
        first.add(observation);
        if by_order.iter().any(|(condition, _)| *condition == observation.condition()) {
            first_of_all.add(observation);
        }
    }
    let (apart, among) = match alone.agrees_with(first) {
        true => (alone.plus(first), suite.minus(first_of_all)),
        false => (alone, suite),
    };
    let lines = || -> Vec<String> {
        let all = by_order.iter().copied().chain([(Condition::Alone, alone), (Condition::File, file)]);
        all.filter(|(_, count)| count.attempts > 0)
            .map(|(condition, count)| format!("{condition}: {}", count.text()))
            .collect()
    };
    let found = |category, confidence, first: String| {
        let mut evidence = vec![first];
        evidence.extend(lines());
        Some(Finding { category, confidence, evidence, world: None })
    };
    if let Some((condition, count)) = varying_treatment(ledger, &observations) {
        let line = format!("nothing was changed ({condition}) and it {}", count.text());
        return found(Category::NonDeterministic, 1.0, line);
    }
    let with_nothing_before = match apart.attempts - alone.attempts {
        0 => "alone".to_owned(),
        first => format!("with nothing before it (alone {}, first of the suite {first})", alone.attempts),
    };
    let apart_or_among = chance_of_difference(apart, among);
    if apart.attempts > 0 && apart.failures == 0 && among.failures > 0 && apart_or_among < CHANCE {
        let attempts = apart.attempts;
        let line =
            format!("passed {attempts} of {attempts} {with_nothing_before}, {} among others", among.text());
        return found(Category::OrderVictim, 1.0 - apart_or_among, line);
    }
    if apart.failures > 0
        && apart.failures == apart.attempts
        && among.varies_or_passes()
        && apart_or_among < CHANCE
    {
        let line = format!("{} {with_nothing_before}, {} among others", apart.text(), among.text());
        return found(Category::OrderBrittle, 1.0 - apart_or_among, line);
    }
    // Where an order decides, what the test does alone says which way: alone it differs from one side.
    let category_by = |one: Count, rest: Count| {
        if chance_of_difference(apart, one).min(chance_of_difference(apart, rest)) >= CHANCE {
            Category::OrderDependent
        } else if apart.failures == 0 {
            Category::OrderVictim
        } else if apart.failures == apart.attempts {
            Category::OrderBrittle
        } else {
            Category::OrderDependent
        }
    };
    // One order against the other two; three such looks are paid for by dividing the level.
    let (condition, count, chance) = by_order
        .iter()
        .map(|(condition, count)| {
            let rest = suite.minus(*count);
            (*condition, *count, (3.0 * chance_of_difference(*count, rest)).min(1.0))
        })
        .min_by(|a, b| a.2.total_cmp(&b.2))?;
    if chance < CHANCE {
        let line = format!("{condition}: {}, all orders together: {}", count.text(), suite.text());
        return found(category_by(count, suite.minus(count)), 1.0 - chance, line);
    }
    let repeats = repeated_failing_shuffles(&observations);
    if repeats.failures >= 3 && suite.failures < suite.attempts {
        let line = format!("an order it fails in was repeated: it {} there", repeats.text());
        let chance = chance_of_difference(repeats, suite.minus(repeats));
        return found(category_by(repeats, suite.minus(repeats)), 1.0 - chance, line);
    }
    None
}

impl Count {
    /// Whether two counts may be of one kind of run: one is empty, or both always pass, or both always fail.
    fn agrees_with(self, other: Count) -> bool {
        let all_fail = |count: Count| count.failures == count.attempts;
        self.attempts == 0
            || other.attempts == 0
            || self.failures + other.failures == 0
            || all_fail(self) && all_fail(other)
    }

    fn varies_or_passes(self) -> bool {
        self.failures < self.attempts
    }

    fn minus(self, other: Count) -> Count {
        Count { attempts: self.attempts - other.attempts, failures: self.failures - other.failures }
    }
}

/// A treatment (scope, order, selection) under which the test both passed and failed.
fn varying_treatment(ledger: &Ledger, observations: &[&Observation]) -> Option<(Condition, Count)> {
    let mut treatments: Vec<(&AttemptSpec, Count)> = Vec::new();
    for observation in observations {
        let Some(spec) = ledger.spec_of(observation) else { continue };
        let same = |known: &AttemptSpec| {
            known.scope == spec.scope
                && known.order == spec.order
                && known.tests == spec.tests
                && known.treatment == spec.treatment
        };
        match treatments.iter_mut().find(|(known, _)| same(known)) {
            Some((_, count)) => count.add(observation),
            None => {
                let mut count = Count::default();
                count.add(observation);
                treatments.push((spec, count));
            }
        }
    }
    treatments
        .into_iter()
        .filter(|(_, count)| count.varies())
        .max_by_key(|(_, count)| count.attempts)
        .map(|(spec, count)| (Condition::of(spec.scope, spec.order, &spec.treatment), count))
}

/// Counts over shuffles that were run more than once and failed every time.
fn repeated_failing_shuffles(observations: &[&Observation]) -> Count {
    let mut shuffled: Vec<&Observation> =
        observations.iter().copied().filter(|o| o.condition() == Condition::Shuffled).collect();
    shuffled.sort_by_key(|o| o.order);
    let mut sum = Count::default();
    for group in shuffled.chunk_by(|a, b| a.order == b.order) {
        let mut count = Count::default();
        group.iter().for_each(|o| count.add(o));
        if count.attempts > 1 && count.failures == count.attempts {
            sum = sum.plus(count);
        }
    }
    sum
}

/// Fisher's exact test, one-sided towards the difference that was seen: the chance that counts at
/// least this far apart come from one rate.
pub(super) fn chance_of_difference(one: Count, other: Count) -> f64 {
    let attempts = one.attempts + other.attempts;
    let failures = one.failures + other.failures;
    if one.attempts == 0 || other.attempts == 0 || failures == 0 || failures == attempts {
        return 1.0;
    }
    // failures of `one` are hypergeometric given the margins
    let ln_probability = |k: u32| {
        ln_choose(one.attempts, k) + ln_choose(other.attempts, failures - k) - ln_choose(attempts, failures)
    };
    let least = failures.saturating_sub(other.attempts);
    let most = failures.min(one.attempts);
    let more_often = u64::from(one.failures) * u64::from(other.attempts)
        > u64::from(other.failures) * u64::from(one.attempts);
    let tail = if more_often { one.failures..=most } else { least..=one.failures };
    tail.map(|k| ln_probability(k).exp()).sum::<f64>().min(1.0)
}

fn ln_choose(n: u32, k: u32) -> f64 {
    let ln_factorial = |n: u32| ln_gamma(f64::from(n) + 1.0);
    ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_test_agrees_with_the_documented_values() {
        for row in crate::score::documented::rows("Telling order from chance") {
            let count = |cell: &str| {
                let (failures, attempts) = cell.split_once(" of ").unwrap();
                Count { attempts: attempts.parse().unwrap(), failures: failures.parse().unwrap() }
            };
            let (one, other, expect) = (count(&row[0]), count(&row[1]), row[2].parse::<f64>().unwrap());
            for (one, other) in [(one, other), (other, one)] {
                let chance = chance_of_difference(one, other);
                assert!((chance - expect).abs() < 0.000_5, "{row:?}: {chance}");
            }
        }
    }
}
