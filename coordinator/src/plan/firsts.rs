//! Which test a shuffle begins with. Nothing runs before the first test of an attempt on the suite, so that it
//! answers what a run alone would, and the attempt is made anyway: shuffles are chosen so that each begins with
//! a test of which that is asked.

use super::alone;
use super::batch;
use super::costs::Costs;
use super::needs::record_of;
use crate::experiment::{
    Guarantee, History, Ledger, Question, ScopeChoice, Seen, Standing, derive_seed, shuffle_key,
};
use flakefarm_shared::{AttemptSpec, Order, Scope, Selection, TestId};
use std::collections::VecDeque;

/// Tests of a suite up to which shuffles are chosen. Beside larger ones a run alone costs next to nothing, and
/// the seed would take long to find.
const TESTS_AT_MOST: usize = 1_000;
/// Of the tests that shuffles begin with, one in so many is one of which nothing is suspected.
const ANY_ONE_IN: usize = 3;
/// Seeds tried for each test of an attempt: one in so many tests is the first of it by chance.
const TRIES: usize = 12;

/// Whether shuffles are chosen in this sweep. Under the suite's guarantee attempts leave out different tests, so that
/// none is repeated as it was, and chance shows alone only.
pub(super) fn are_chosen(question: &Question, ledger: &Ledger) -> bool {
    question.scope == ScopeChoice::Auto
        && question.guarantee == Guarantee::PerTest
        && question.order.is_none()
        && question.able.can_order(Order::Shuffled { seed: 0 })
        && (2..=TESTS_AT_MOST).contains(&ledger.tests().len())
}

/// Attempts on the suite that began with the test at `place`, in which it passed or failed.
pub(super) fn made(ledger: &Ledger, place: usize) -> u32 {
    let counts = |seen: &Seen| !matches!(seen, Seen::Skip);
    let began = ledger.observations_at(place).iter().filter(|o| o.is_first_of_many() && counts(&o.seen));
    batch::index(began.count())
}

/// Shuffles of the suite that are under way.
fn under_way(ledger: &Ledger) -> usize {
    let outstanding = ledger.each_attempt().filter(|attempt| attempt.standing == Standing::Outstanding);
    let shuffled = outstanding.filter_map(|attempt| attempt.spec).filter(|spec| {
        spec.scope == Scope::Suite
            && spec.treatment.is_plain()
            && matches!(spec.order, Order::Shuffled { .. })
    });
    shuffled.count()
}

/// Tests that shuffles to come are to begin with, in turn: `suspicious` ones, by place in the ledger, and of those
/// that want more runs some that never ran without others before them, which finds what only passes because of
/// its neighbours.
pub(super) fn wanted<'l>(
    question: &Question,
    history: &History,
    costs: &Costs<'l>,
    suspicious: &[usize],
    wants: &[u32],
) -> VecDeque<&'l TestId> {
    let ledger = costs.ledger();
    if !are_chosen(question, ledger) {
        return VecDeque::new();
    }
    let is_open = |place: &usize| {
        let never = ledger.tally_of(*place).alone == 0 && made(ledger, *place) == 0;
        wants[*place] > 0 && never && record_of(history, ledger, *place).is_none()
    };
    let open: Vec<TestId> =
        (0..wants.len()).filter(is_open).map(|place| ledger.tests()[place].clone()).collect();
    let any = alone::affordable(&open, question.seed, f64::INFINITY, costs);
    let mut any = any.filter_map(|test| ledger.place(test));
    let mut suspicious = suspicious.iter().copied();
    let mut wanted = VecDeque::new();
    for turn in 1.. {
        let next = if turn % ANY_ONE_IN == 0 {
            any.next().or_else(|| suspicious.next())
        } else {
            suspicious.next().or_else(|| any.next())
        };
        let Some(place) = next else { break };
        wanted.push_back(&ledger.tests()[place]);
    }
    // Those under way began with the head of this.
    wanted.drain(..under_way(ledger).min(wanted.len()));
    wanted
}

/// Has the attempt with this number, if it is a shuffle of the suite, begin with the next test that is wanted.
pub(super) fn begin(
    question: &Question,
    ledger: &Ledger,
    spec: &mut AttemptSpec,
    number: usize,
    wanted: &mut VecDeque<&TestId>,
) {
    if wanted.is_empty() || spec.scope != Scope::Suite || !matches!(spec.order, Order::Shuffled { .. }) {
        return;
    }
    let tests: Vec<&TestId> = match &spec.tests {
        Selection::All => ledger.tests().iter().collect(),
        Selection::Only(tests) => tests.iter().collect(),
    };
    if let Some(seed) = seed(question, number, &tests, wanted) {
        spec.order = Order::Shuffled { seed };
    }
}

/// Takes from `wanted` the first test that is among `tests`, and gives the seed of a shuffle, number `number` of
/// the sweep, that begins with it.
fn seed(
    question: &Question,
    number: usize,
    tests: &[&TestId],
    wanted: &mut VecDeque<&TestId>,
) -> Option<u64> {
    let place = wanted.iter().position(|test| tests.contains(test))?;
    let first = wanted.remove(place)?;
    let mut seeds = (0..TRIES * tests.len())
        .map(|attempt| derive_seed(question.seed, &format!("shuffle:{number}:{attempt}")));
    let begins_with_it = |seed: &u64| {
        let key = shuffle_key(*seed, first);
        tests.iter().all(|test| *test == first || shuffle_key(*seed, test) > key)
    };
    seeds.find(begins_with_it)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shuffle_begins_with_the_test_that_is_wanted() {
        let tests: Vec<TestId> = (0..60).map(|n| TestId(format!("t.py::test_{n}"))).collect();
        let all: Vec<&TestId> = tests.iter().collect();
        let question = Question::detect(7);
        let elsewhere = TestId::from("u.py::gone");
        let mut wanted = VecDeque::from([&elsewhere, &tests[41], &tests[3]]);
        for first in [&tests[41], &tests[3]] {
            // 720 seeds, each with a chance of 1 in 60: none will do with probability 6e-6, and 7 is fixed.
            let seed = seed(&question, 9, &all, &mut wanted).unwrap();
            let begins = all.iter().min_by_key(|test| shuffle_key(seed, test)).unwrap();
            assert_eq!(*begins, first);
        }
        assert_eq!(wanted, [&elsewhere]);
        assert_eq!(seed(&question, 9, &all, &mut wanted), None);
    }
}
