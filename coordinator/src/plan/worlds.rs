//! What a ledger says of worlds as a whole: which were not given, and which say something of the
//! project rather than of its tests.

use super::ledger::{Condition, Ledger, Observation, Seen, Standing};
use flakefarm_shared::{AttemptEnd, Scope, TestId, World};
use std::collections::BTreeMap;

/// A world in which more than half of the tests fail that pass in the plain one, and at least so
/// many, is one that the project cannot bear: it accuses none of them.
const UNBEARABLE_SHARE: f64 = 0.5;
const UNBEARABLE_TESTS: usize = 10;

impl Ledger {
    /// What was seen of `test` in the plain world.
    pub fn plain(&self, test: &TestId) -> impl Iterator<Item = &Observation> {
        self.observations(test).iter().filter(|observation| observation.world.is_plain())
    }
}

/// How the worlds of a ledger fared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorldsSeen {
    /// Worlds in which no attempt said anything, with the reason.
    pub not_given: BTreeMap<World, String>,
    /// Worlds that the project cannot bear.
    pub unbearable: BTreeMap<World, Unbearable>,
}

/// A world that breaks the project as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unbearable {
    /// Tests that fail in it and pass in the plain world.
    pub failing: usize,
    /// Tests that pass in the plain world and were seen in it.
    pub tests: usize,
}

impl WorldsSeen {
    /// Reads a ledger.
    pub fn read(ledger: &Ledger) -> Self {
        Self { not_given: not_given(ledger), unbearable: unbearable(ledger) }
    }

    /// Whether failures in `world` say something of the tests that fail.
    pub fn is_usable(&self, world: World) -> bool {
        !self.unbearable.contains_key(&world)
    }

    /// Whether attempts under `condition` say something of tests.
    pub fn counts(&self, condition: Condition) -> bool {
        match condition {
            Condition::World(world) => self.is_usable(world),
            Condition::Given
            | Condition::Reversed
            | Condition::Shuffled
            | Condition::Alone
            | Condition::File
            | Condition::Chosen => true,
        }
    }

    /// What a reader of the report has to know, a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let not_given = self.not_given.iter().map(|(world, reason)| {
            format!("condition {world} was left out, it cannot be given here: {reason}")
        });
        let unbearable = self.unbearable.iter().map(|(world, found)| {
            format!(
                "condition {world} was left out of all verdicts, it breaks the project as a whole: {} of {} tests \
                 that pass without it fail",
                found.failing, found.tests
            )
        });
        not_given.chain(unbearable).collect()
    }
}

fn not_given(ledger: &Ledger) -> BTreeMap<World, String> {
    let mut reasons: BTreeMap<World, String> = BTreeMap::new();
    let mut given = Vec::new();
    for attempt in ledger.each_attempt() {
        let Standing::Ended(record) = attempt.standing else { continue };
        match &record.end {
            AttemptEnd::NothingRan { reason } => {
                reasons.entry(record.world).or_insert_with(|| reason.clone());
            }
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => given.push(record.world),
            AttemptEnd::Infrastructure(_) => {}
        }
    }
    reasons.retain(|world, _| !world.is_plain() && !given.contains(world));
    reasons
}

fn unbearable(ledger: &Ledger) -> BTreeMap<World, Unbearable> {
    let mut worlds: BTreeMap<World, Unbearable> = BTreeMap::new();
    for place in 0..ledger.tests().len() {
        let tally = ledger.tally_of(place);
        if tally.passes == 0 || tally.failures > 0 {
            continue;
        }
        let observations = ledger.observations_at(place).iter();
        for observation in observations.filter(|o| !o.world.is_plain() && o.scope == Scope::Suite) {
            let found = worlds.entry(observation.world).or_insert(Unbearable { failing: 0, tests: 0 });
            match observation.seen {
                Seen::Pass => found.tests += 1,
                Seen::Fail(_) => {
                    found.tests += 1;
                    found.failing += 1;
                }
                Seen::Skip => {}
            }
        }
    }
    worlds.retain(|_, found| {
        found.failing >= UNBEARABLE_TESTS && found.failing as f64 > UNBEARABLE_SHARE * found.tests as f64
    });
    worlds
}
