//! Which long sweeps are planned at the same time: what is recorded of a sweep is kept in memory while it is
//! planned, and a coordinator's memory is bounded whatever is submitted.

use super::{Coordinator, EngineError};
use crate::db::SweepRow;
use flakefarm_shared::SweepId;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use tracing::info;

/// A sweep with fewer attempts recorded never waits.
const SHORT: u64 = 50_000;

/// Attempts that are recorded of each sweep that runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Room(Arc<Mutex<BTreeMap<SweepId, Weight>>>);

#[derive(Debug, Clone, Copy, Default)]
struct Weight {
    attempts: u64,
    waits: bool,
}

/// Whether a sweep is planned now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Plans,
    /// It waits from now on.
    Leaves,
    Waits,
}

impl Room {
    /// So many attempts of a sweep are recorded.
    pub(super) fn weigh(&self, sweep: SweepId, attempts: u64) {
        let mut weights = self.0.lock().expect("nobody panics while holding the lock");
        weights.entry(sweep).or_default().attempts = attempts;
    }

    /// Forgets all sweeps but these.
    pub(super) fn keep(&self, running: &HashSet<SweepId>) {
        let mut weights = self.0.lock().expect("nobody panics while holding the lock");
        weights.retain(|sweep, _| running.contains(sweep));
    }

    fn is_known(&self, sweep: SweepId) -> bool {
        self.0.lock().expect("nobody panics while holding the lock").contains_key(&sweep)
    }

    /// Short sweeps are planned always. Of the long ones the first is, and those after it as far as there is room
    /// for `most` attempts. Ids are in the order of submission.
    fn turn(&self, sweep: SweepId, most: u64) -> Turn {
        let mut weights = self.0.lock().expect("nobody panics while holding the lock");
        let long = |weight: &Weight| weight.attempts >= SHORT;
        let before: u64 = weights
            .range(..sweep)
            .map(|(_, weight)| weight)
            .filter(|weight| long(weight))
            .fold(0, |sum, weight| sum.saturating_add(weight.attempts));
        let Some(weight) = weights.get_mut(&sweep) else { return Turn::Plans };
        if !long(weight) || before == 0 || before.saturating_add(weight.attempts) <= most {
            weight.waits = false;
            Turn::Plans
        } else if std::mem::replace(&mut weight.waits, true) {
            Turn::Waits
        } else {
            Turn::Leaves
        }
    }
}

impl Coordinator {
    /// Whether there is room for a sweep to be planned. One that has to wait for older ones is forgotten meanwhile; what
    /// comes of its jobs is recorded, and read when its turn comes.
    pub(super) async fn has_room(&self, row: &SweepRow) -> Result<bool, EngineError> {
        if !self.room.is_known(row.id) {
            self.room.weigh(row.id, self.db.ended_attempts(row.id).await?);
        }
        match self.room.turn(row.id, self.limits.samples) {
            Turn::Plans => Ok(true),
            Turn::Waits => Ok(false),
            Turn::Leaves => {
                info!(sweep.id = %row.id, "this long sweep waits until older ones have ended: memory is bounded");
                self.memories.forget(row.id);
                Ok(false)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweeps(weights: &[u64]) -> (Room, Vec<SweepId>) {
        let room = Room::default();
        let mut ids: Vec<SweepId> = weights.iter().map(|_| SweepId::new()).collect();
        ids.sort();
        for (id, weight) in ids.iter().zip(weights) {
            room.weigh(*id, *weight);
        }
        (room, ids)
    }

    fn planned(room: &Room, ids: &[SweepId], most: u64) -> Vec<usize> {
        (0..ids.len()).filter(|place| room.turn(ids[*place], most) == Turn::Plans).collect()
    }

    #[test]
    fn long_sweeps_wait_for_older_ones_and_short_ones_for_nobody() {
        let (room, ids) = sweeps(&[900_000, 10, 90_000, 400_000, 49_999, 60_000]);
        assert_eq!(planned(&room, &ids, 1_000_000), [0, 1, 2, 4]);
        // The first is never kept waiting, however long it is.
        assert_eq!(planned(&room, &ids, 1), [0, 1, 4]);
        room.keep(&ids[1..].iter().copied().collect());
        assert_eq!(planned(&room, &ids[1..], 500_000), [0, 1, 2, 3]);
    }

    #[test]
    fn a_sweep_leaves_once_and_comes_back_when_there_is_room() {
        let (room, ids) = sweeps(&[900_000, 400_000]);
        assert_eq!(room.turn(ids[1], 1_000_000), Turn::Leaves);
        assert_eq!(room.turn(ids[1], 1_000_000), Turn::Waits);
        room.keep(&HashSet::from([ids[1]]));
        assert_eq!(room.turn(ids[1], 1_000_000), Turn::Plans);
        room.weigh(ids[0], 900_000);
        assert_eq!(room.turn(ids[1], 1_000_000), Turn::Leaves);
    }
}
