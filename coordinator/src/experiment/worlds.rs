//! What a ledger says of worlds as a whole: which were not given, and which say something of the
//! project rather than of its tests.

use super::job_key::JobPhase;
use super::ledger::{Condition, Ledger, Observation, Seen, Standing};
use flakefarm_shared::{AttemptEnd, NothingRan, Scope, Selection, TestId, Treatment, World};
use std::collections::{BTreeMap, BTreeSet};

/// A world in which more than half of the tests fail that pass in the plain one, and at least so
/// many, is one that the project cannot bear: it accuses none of them.
const UNBEARABLE_SHARE: f64 = 0.5;
const UNBEARABLE_TESTS: usize = 10;
/// Starts that fail so often in a world are its doing.
const REPEATEDLY: u32 = 2;

impl Ledger {
    /// What was seen of `test` in the plain world.
    pub fn plain(&self, test: &TestId) -> impl Iterator<Item = &Observation> {
        self.observations(test).iter().filter(|observation| observation.treatment.is_plain())
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
    /// Tests that pass in the plain world, and were seen in it or left out as nothing that it changes.
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

    /// Whether what is seen under `treatment` says something of the tests that were submitted.
    pub fn speaks(&self, treatment: &Treatment) -> bool {
        treatment.other_source().is_none() && self.is_usable(treatment.world)
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
            Condition::OtherSource => false,
        }
    }
}

fn not_given(ledger: &Ledger) -> BTreeMap<World, String> {
    let mut reasons: BTreeMap<World, String> = BTreeMap::new();
    let mut given = Vec::new();
    // A start that failed says something of a world only if starts without it succeed, and if it did again.
    let mut deaths: BTreeMap<World, u32> = BTreeMap::new();
    let mut refused = BTreeSet::new();
    let (mut starts, mut failed_starts) = (0_u32, 0_u32);
    for attempt in ledger.each_attempt() {
        let Standing::Ended(record) = attempt.standing else { continue };
        let Some(world) = record.treatment.other_world() else {
            if record.treatment.is_plain() {
                match record.end {
                    AttemptEnd::NothingRan { .. } => failed_starts += 1,
                    AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => starts += 1,
                    AttemptEnd::Infrastructure(_) => {}
                }
            }
            continue;
        };
        match &record.end {
            AttemptEnd::NothingRan { reason, why } => {
                match why {
                    NothingRan::Died | NothingRan::Tampered => *deaths.entry(world).or_default() += 1,
                    NothingRan::Unavailable
                    | NothingRan::NoFramework
                    | NothingRan::Refused
                    | NothingRan::NothingCollected => {
                        refused.insert(world);
                    }
                }
                reasons.entry(world).or_insert_with(|| reason.clone());
            }
            AttemptEnd::Completed | AttemptEnd::Interrupted { .. } => given.push(world),
            AttemptEnd::Infrastructure(_) => {}
        }
    }
    let plain_runs_start = starts > 0 && failed_starts == 0;
    let died = |world: &World| deaths.get(world).is_some_and(|deaths| *deaths >= REPEATEDLY);
    reasons.retain(|world, _| {
        !given.contains(world) && (refused.contains(world) || (plain_runs_start && died(world)))
    });
    reasons
}

fn unbearable(ledger: &Ledger) -> BTreeMap<World, Unbearable> {
    let mut worlds: BTreeMap<World, Unbearable> = BTreeMap::new();
    let mut runs: BTreeMap<World, (u32, u32)> = BTreeMap::new();
    for place in (0..ledger.tests().len()).filter(|place| only_passes(*place, ledger)) {
        let observations = ledger.observations_at(place).iter();
        // Closer looks take those that fail only.
        for observation in observations.filter(|o| o.scope == Scope::Suite && o.key.phase != JobPhase::Look) {
            let Some(world) = observation.treatment.other_world() else { continue };
            let (passes, failures) = runs.entry(world).or_default();
            match observation.seen {
                Seen::Pass => *passes += 1,
                Seen::Fail(_) => *failures += 1,
                Seen::Skip => {}
            }
        }
        // Some tests run there more often than others: each is one.
        while let Some((world, (passes, failures))) = runs.pop_first() {
            let found = worlds.entry(world).or_insert(Unbearable { failing: 0, tests: 0 });
            found.tests += usize::from(passes + failures > 0);
            found.failing += usize::from(failures > passes);
        }
    }
    worlds.retain(|_, found| breaks_the_project(*found));
    for (world, found) in &mut worlds {
        found.tests += left_out(*world, ledger);
    }
    worlds.retain(|_, found| breaks_the_project(*found));
    worlds
}

fn only_passes(place: usize, ledger: &Ledger) -> bool {
    let tally = ledger.tally_of(place);
    tally.passes > 0 && tally.failures == 0
}

fn breaks_the_project(found: Unbearable) -> bool {
    found.failing >= UNBEARABLE_TESTS && found.failing as f64 > UNBEARABLE_SHARE * found.tests as f64
}

/// Tests that pass in the plain world and that no attempt on the suite in `world` was to run.
fn left_out(world: World, ledger: &Ledger) -> usize {
    let mut asked = BTreeSet::new();
    for attempt in ledger.each_attempt().filter(|attempt| attempt.key.phase != JobPhase::Look) {
        let Some(spec) = attempt.spec else { continue };
        if spec.scope != Scope::Suite || spec.treatment.other_world() != Some(world) {
            continue;
        }
        match &spec.tests {
            Selection::All => return 0,
            Selection::Only(tests) => asked.extend(tests.iter().filter_map(|test| ledger.place(test))),
        }
    }
    let places = 0..ledger.tests().len();
    places.filter(|place| only_passes(*place, ledger) && !asked.contains(place)).count()
}
