//! Which shuffles are worth repeating: a test that fails again in the same order fails for the order,
//! one that passes fails by chance.

use crate::experiment::{Ledger, Observation, Seen};
use flakefarm_shared::{Order, Scope, Selection};
use std::collections::{BTreeMap, BTreeSet};

/// Shuffles of the suite in which tests failed that were not yet seen to pass and to fail alone, with
/// the places of these tests.
pub(super) fn failing_shuffles(ledger: &Ledger) -> BTreeMap<Order, BTreeSet<usize>> {
    let mut open: BTreeMap<Order, BTreeSet<usize>> = BTreeMap::new();
    for place in 0..ledger.tests().len() {
        let tally = ledger.tally_of(place);
        if tally.passes == 0 || tally.failures == 0 {
            continue;
        }
        let observations = ledger.observations_at(place);
        let failed = |o: &&Observation| o.treatment.is_plain() && matches!(o.seen, Seen::Fail(_));
        let alone = || observations.iter().filter(|o| o.treatment.is_plain() && o.scope == Scope::Test);
        if alone().any(|o| failed(&o)) && alone().any(|o| matches!(o.seen, Seen::Pass)) {
            continue;
        }
        for observation in observations.iter().filter(|o| o.scope == Scope::Suite).filter(failed) {
            if let Order::Shuffled { .. } = observation.order {
                open.entry(observation.order).or_default().insert(place);
            }
        }
    }
    open
}

/// Whether a test was seen to pass and to fail alone, or in the given order of everything: what it
/// does then is chance, and no run alone says more.
pub(super) fn varies_unchanged(ledger: &Ledger, place: usize) -> bool {
    let observations = ledger.observations_at(place);
    let both = |among: &dyn Fn(&Observation) -> bool| {
        let mut outcomes = observations.iter().filter(|o| o.treatment.is_plain() && among(o));
        let Some(first) = outcomes.find(|o| !matches!(o.seen, Seen::Skip)) else { return false };
        let failed = |o: &Observation| matches!(o.seen, Seen::Fail(_));
        outcomes.any(|o| !matches!(o.seen, Seen::Skip) && failed(o) != failed(first))
    };
    let everything = |o: &Observation| {
        let spec = ledger.spec_of(o);
        o.order == Order::Given && spec.is_some_and(|spec| spec.tests == Selection::All)
    };
    both(&|o| o.scope == Scope::Test) || both(&everything)
}

/// Whether a test was seen to fail alone.
pub(super) fn failed_alone(ledger: &Ledger, place: usize) -> bool {
    let alone = |o: &&Observation| o.treatment.is_plain() && o.scope == Scope::Test;
    ledger.observations_at(place).iter().filter(alone).any(|o| matches!(o.seen, Seen::Fail(_)))
}

/// Takes out the shuffle that says most, and from the others the tests it answers.
pub(super) fn take_most_telling(open: &mut BTreeMap<Order, BTreeSet<usize>>) -> Option<Order> {
    // The last of the largest; ties go by the order's seed.
    let order = open.iter().max_by_key(|(_, tests)| tests.len()).map(|(order, _)| *order)?;
    let answered = open.remove(&order).unwrap_or_default();
    open.values_mut().for_each(|tests| tests.retain(|test| !answered.contains(test)));
    open.retain(|_, tests| !tests.is_empty());
    Some(order)
}
