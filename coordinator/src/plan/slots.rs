//! The attempts on many tests that a sweep makes before it has seen anything: which, and in which
//! order. Data that planners read; nothing here looks at the ledger.

use super::chains::Slot;
use crate::experiment::{History, Ledger, Question, Runs, ScopeChoice, Series, derive_seed};
use flakefarm_shared::{Order, Scope, Selection, TestId, World};
use std::collections::BTreeMap;

/// Orders of the whole suite that an adaptive sweep opens with.
const OPENING: u32 = 3;
/// And one that knows most of the tests: a test that changed may depend on any other, or spoil any
/// other, which only an attempt on all of them shows.
const OPENING_KNOWN: u32 = 2;
/// Clean runs from which on a test counts as known.
const KNOWN_RUNS: f64 = 5.0;

/// The attempts of the first phase, in the order they are made, and the series they are
/// numbered in. With a fixed number of runs these are all; an adaptive sweep opens with three orders of the
/// suite unless earlier sweeps know most of its tests, and goes on as they show.
pub(super) fn first_phase(
    question: &Question,
    history: &History,
    ledger: &Ledger,
    selected: &[TestId],
) -> (Series, Vec<Slot>) {
    let runs = match question.runs {
        Runs::Fixed(runs) => runs.get(),
        Runs::Adaptive => opening(question, history, selected),
    };
    match question.scope {
        ScopeChoice::Test => (Series::Suite, Vec::new()),
        ScopeChoice::Suite | ScopeChoice::Auto => {
            let tests = everything(question, selected);
            let slot = |order| Slot { scope: Scope::Suite, order, tests: tests.clone(), world: World::Plain };
            let orders = match (selected.is_empty(), question.order) {
                (true, _) => Vec::new(),
                (false, Some(order)) => (0..runs).map(|_| order).collect(),
                (false, None) => suite_orders(runs, question.seed)
                    .into_iter()
                    .map(|order| question.in_order(order))
                    .collect(),
            };
            (Series::Suite, orders.into_iter().map(slot).collect())
        }
        ScopeChoice::File => {
            let files = by_file(ledger, selected).into_iter();
            let files: Vec<(String, Selection)> =
                files.map(|(file, tests)| (file, Selection::only(tests))).collect();
            let mut slots = Vec::new();
            for run in 0..runs {
                for (file, tests) in &files {
                    let order = order_in_file(question, file, run as usize);
                    let tests = tests.clone();
                    slots.push(Slot { scope: Scope::File, order, tests, world: World::Plain });
                }
            }
            (Series::File, slots)
        }
    }
}

/// Every selected test.
pub(super) fn everything(question: &Question, selected: &[TestId]) -> Selection {
    if question.tests.is_everything() { Selection::All } else { Selection::only(selected.to_vec()) }
}

/// Attempts on the whole suite that an adaptive sweep opens with.
fn opening(question: &Question, history: &History, selected: &[TestId]) -> u32 {
    if question.scope == ScopeChoice::File {
        return 0;
    }
    let known = |test: &&TestId| {
        let record = history.of(test).and_then(|known| known.record);
        record.is_some_and(|record| record.clean_runs >= KNOWN_RUNS)
    };
    let known = selected.iter().filter(known).count();
    if !history.is_empty() && 2 * known > selected.len() {
        if known == selected.len() { 0 } else { OPENING_KNOWN.min(question.runs_for_guarantee()) }
    } else {
        OPENING.min(question.runs_for_guarantee())
    }
}

/// The order of the attempt on many tests with this number, in a sweep that does not know how many
/// it will make: given, reversed, shuffled, then a third as given, one more reversed, the rest
/// shuffled.
pub(super) fn order_of(question: &Question, number: usize) -> Order {
    question.in_order(match (question.order, number) {
        (Some(order), _) => order,
        (None, 0) => Order::Given,
        (None, 1 | 6) => Order::Reversed,
        (None, number) if number > 2 && number.is_multiple_of(3) => Order::Given,
        (None, number) => Order::Shuffled { seed: derive_seed(question.seed, &format!("shuffle:{number}")) },
    })
}

/// The order of the attempt on a file with this number: given and shuffled in turn.
pub(super) fn order_in_file(question: &Question, file: &str, number: usize) -> Order {
    if number.is_multiple_of(2) {
        return Order::Given;
    }
    question.in_order(Order::Shuffled { seed: derive_seed(question.seed, &format!("file:{file}:{number}")) })
}

/// Orders of `runs` attempts on the suite: a third as given, at least two; two reversed, one below
/// six runs; the rest shuffled; one of each before any is repeated.
fn suite_orders(runs: u32, seed: u64) -> Vec<Order> {
    let reversed = match runs {
        0 | 1 => 0,
        2..6 => 1,
        6.. => 2,
    };
    let given = if runs <= 2 { runs - reversed } else { runs.div_ceil(3).max(2).min(runs - reversed) };
    let mut left = [given, reversed, runs - given - reversed];
    let mut orders = Vec::new();
    let turns = [0, 1, 2].into_iter().chain([0, 2, 1, 2].into_iter().cycle());
    for turn in turns {
        if left == [0, 0, 0] {
            break;
        }
        if left[turn] == 0 {
            continue;
        }
        left[turn] -= 1;
        orders.push(match turn {
            0 => Order::Given,
            1 => Order::Reversed,
            _ => Order::Shuffled { seed: derive_seed(seed, &format!("shuffle:{}", orders.len())) },
        });
    }
    orders
}

pub(super) fn by_file(ledger: &Ledger, tests: &[TestId]) -> Vec<(String, Vec<TestId>)> {
    let mut files: Vec<(String, Vec<TestId>)> = Vec::new();
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for test in tests {
        let file = ledger.file_of(test);
        let place = *places.entry(file).or_insert_with(|| {
            files.push((file.to_owned(), Vec::new()));
            files.len() - 1
        });
        files[place].1.push(test.clone());
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn suite_orders_are_as_documented() {
        for row in crate::score::documented::rows("Which runs") {
            let letters: String = suite_orders(row[0].parse().unwrap(), 1)
                .iter()
                .map(|order| match order {
                    Order::Given => 'G',
                    Order::Reversed => 'R',
                    Order::Shuffled { .. } => 'S',
                    Order::AsListed => 'L',
                })
                .collect();
            assert_eq!(letters, row[1]);
        }
        assert_eq!(suite_orders(59, 1).len(), 59);
    }

    #[test]
    fn shuffles_differ_and_follow_the_seed() {
        let seeds = |seed| -> BTreeSet<Order> {
            suite_orders(59, seed).into_iter().filter(|o| matches!(o, Order::Shuffled { .. })).collect()
        };
        assert_eq!(seeds(1).len(), 37);
        assert_eq!(seeds(1), seeds(1));
        assert!(seeds(1).is_disjoint(&seeds(2)));
    }
}
