//! Which way of mending to try first: the one that has mended failures of this kind most reliably, with a
//! minimum of exploration, so that what failed once is not left for ever.

use crate::experiment::derive_seed;
use serde::{Deserialize, Serialize};
use statrs::function::beta::beta_reg;
use std::collections::BTreeMap;

/// The success rate is at least the lower bound with this probability.
const SURE: f64 = 0.9;
/// What is known of a strategy from other kinds of failures counts this part of what is known of this kind.
const ELSEWHERE: f64 = 0.1;
/// One choice of so many goes to what was tried least.
const EXPLORED: u64 = 10;

/// How one strategy fared on one kind of failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Success {
    /// Proposals that an experiment was spent on.
    pub tried: u64,
    /// Those that were shown to mend.
    pub proved: u64,
}

/// One strategy on one kind of failure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Guess {
    /// How it is mended: `adapt`, `restore-state`, `provider:http`.
    pub strategy: String,
    /// What is mended: `change`, `order_victim`, `unknown`.
    pub failure: String,
}

/// What a project's repairs have taught.
#[derive(Debug, Clone, Default)]
pub struct Learnt(BTreeMap<Guess, Success>);

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Its place in the list that was asked about.
    pub place: usize,
    /// It was chosen because little is known of it, not because it promises most.
    pub explores: bool,
}

impl FromIterator<(Guess, Success)> for Learnt {
    fn from_iter<T: IntoIterator<Item = (Guess, Success)>>(rows: T) -> Self {
        let mut learnt = Self::default();
        for (guess, success) in rows {
            let known = learnt.0.entry(guess).or_default();
            known.tried += success.tried;
            known.proved += success.proved.min(success.tried);
        }
        learnt
    }
}

impl Learnt {
    /// How a strategy fared on a kind of failure.
    pub fn of(&self, guess: &Guess) -> Success {
        self.0.get(guess).copied().unwrap_or_default()
    }

    /// The rate at which a strategy mends a kind of failure is this or higher, with a probability of 0.9: the
    /// lower tenth of Beta(1 + proved + e·p, 1 + failed + e·f), where p and f are what was proved and failed on
    /// other kinds of failures and e is 0.1. 0.1 of a strategy of which nothing is known.
    pub fn lower_bound(&self, guess: &Guess) -> f64 {
        let own = self.of(guess);
        let (mut proved, mut failed) = (own.proved as f64, (own.tried - own.proved) as f64);
        let others = self
            .0
            .iter()
            .filter(|(other, _)| other.strategy == guess.strategy && other.failure != guess.failure);
        for (_, success) in others {
            proved += ELSEWHERE * success.proved as f64;
            failed += ELSEWHERE * (success.tried - success.proved) as f64;
        }
        quantile(1.0 + proved, 1.0 + failed, 1.0 - SURE)
    }

    /// Which of `guesses` comes next, in their order where nothing tells them apart. One choice in ten, by
    /// `seed` and `step`, goes to what was tried least. None of none.
    pub fn next(&self, guesses: &[Guess], seed: u64, step: u64) -> Option<Turn> {
        let best = guesses
            .iter()
            .map(|guess| self.lower_bound(guess))
            .enumerate()
            .fold(None, |best: Option<(usize, f64)>, (place, bound)| match best {
                Some((_, most)) if bound <= most => best,
                _ => Some((place, bound)),
            })?
            .0;
        let explores = derive_seed(seed, &format!("repair:{step}")).is_multiple_of(EXPLORED);
        let least = (0..guesses.len()).min_by_key(|place| self.of(&guesses[*place]).tried).unwrap_or(best);
        let new = self.of(&guesses[least]).tried < self.of(&guesses[best]).tried;
        Some(if explores && new {
            Turn { place: least, explores: true }
        } else {
            Turn { place: best, explores: false }
        })
    }

    /// All that is known, by strategy and kind of failure.
    pub fn rows(&self) -> impl Iterator<Item = (&Guess, Success)> {
        self.0.iter().map(|(guess, success)| (guess, *success))
    }
}

/// Where Beta(a, b) has `share` of its mass below, to 1e-9.
fn quantile(a: f64, b: f64, share: f64) -> f64 {
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while high - low > 1e-9 {
        let middle = 0.5 * (low + high);
        if beta_reg(a, b, middle) < share { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(strategy: &str, failure: &str) -> Guess {
        Guess { strategy: strategy.to_owned(), failure: failure.to_owned() }
    }

    fn learnt(rows: &[(&str, &str, u64, u64)]) -> Learnt {
        rows.iter()
            .map(|(strategy, failure, tried, proved)| {
                (guess(strategy, failure), Success { tried: *tried, proved: *proved })
            })
            .collect()
    }

    #[test]
    fn the_bound_is_that_of_a_beta_distribution() {
        // Closed forms: Beta(1, 1) is even, Beta(a, 1) has the distribution function x^a.
        let known = learnt(&[("a", "k", 4, 4), ("b", "k", 2, 0)]);
        assert!((known.lower_bound(&guess("new", "k")) - 0.1).abs() < 1e-6);
        assert!((known.lower_bound(&guess("a", "k")) - 0.1_f64.powf(0.2)).abs() < 1e-6);
        assert!((known.lower_bound(&guess("b", "k")) - (1.0 - 0.9_f64.powf(1.0 / 3.0))).abs() < 1e-6);
        // What was seen elsewhere counts a tenth.
        let elsewhere = known.lower_bound(&guess("a", "other"));
        assert!((elsewhere - 0.1_f64.powf(1.0 / 1.4)).abs() < 1e-6);
    }

    #[test]
    fn what_mends_most_reliably_comes_first_and_the_given_order_breaks_ties() {
        let known = learnt(&[("poor", "k", 9, 1), ("good", "k", 9, 8)]);
        let all = [guess("poor", "k"), guess("new", "k"), guess("good", "k"), guess("newer", "k")];
        let usual = |list: &[Guess]| {
            let turns = (0..200).filter_map(|step| known.next(list, 1, step));
            turns.filter(|turn| !turn.explores).map(|turn| turn.place).collect::<Vec<_>>()
        };
        assert!(usual(&all).iter().all(|place| *place == 2));
        assert!(usual(&all[..2]).iter().all(|place| *place == 1), "one that failed 8 of 9 times waits");
        assert!(usual(&[all[1].clone(), all[3].clone()]).iter().all(|place| *place == 0));
        assert_eq!(known.next(&[], 1, 0), None);
    }

    #[test]
    fn one_choice_in_ten_goes_to_what_was_tried_least() {
        let known = learnt(&[("poor", "k", 9, 1), ("good", "k", 90, 80)]);
        let all = [guess("good", "k"), guess("poor", "k")];
        let turns: Vec<Turn> = (0..2_000).filter_map(|step| known.next(&all, 7, step)).collect();
        let explored = turns.iter().filter(|turn| turn.explores).count();
        // The dice are seeded: the count is always the same, and near a tenth.
        assert!((140..260).contains(&explored), "{explored}");
        assert!(turns.iter().all(|turn| turn.explores == (turn.place == 1)));
        let again: Vec<Turn> = (0..2_000).filter_map(|step| known.next(&all, 7, step)).collect();
        assert_eq!(turns, again);
    }
}
