//! The order in which an attempt runs its tests, worked out as the plugin does it.

use crate::experiment::shuffle_key;
use flakefarm_shared::{Order, TestId};

/// `tests`, as collected, in `order`.
pub(super) fn sequence(tests: &[TestId], order: Order) -> Vec<TestId> {
    let mut sequence = tests.to_vec();
    match order {
        Order::Given | Order::AsListed => {}
        Order::Reversed => sequence.reverse(),
        Order::Shuffled { seed } => sequence.sort_by_cached_key(|test| shuffle_key(seed, test)),
    }
    sequence
}
