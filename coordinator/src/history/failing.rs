//! What a sweep's failing attempts are in history: failures by signature, each with the attempt it happened
//! in and what that is evidence of. Pure.

use crate::db::FailureRow;
use crate::experiment::{Ledger, Observation, Seen};
use crate::history::ingest::case::cut;
use flakefarm_shared::{RunOrigin, Scope, SourceClass, TestId, TreatmentClass, World, WorldClass};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Failures of one sweep that are kept; a suite that is broken fails the same way each time.
const MOST_FAILURES: usize = 20_000;
/// Of one test.
const MOST_OF_TEST: usize = 500;
/// Longest message kept, in bytes.
const LONGEST_MESSAGE: usize = 500;

/// What a sweep leaves of its failures.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failing {
    /// The failures, bounded.
    pub rows: Vec<FailureRow>,
    /// Attempts on many tests that were evidence of the run's class.
    pub occasions: u64,
}

/// The failures of a run of `origin` whose attempts ran in the world `under`. `numbers` are those of its
/// tests.
pub fn of_ledger(
    ledger: &Ledger,
    run: Uuid,
    origin: RunOrigin,
    under: &World,
    numbers: &HashMap<TestId, i64>,
) -> Failing {
    let mut failing = Failing::default();
    let mut occasions = HashSet::new();
    for (place, test) in ledger.tests().iter().enumerate() {
        let mut of_test = 0;
        for observation in ledger.observations_at(place) {
            let class = class_of(observation, origin, under);
            let as_it_is = matches!(class, TreatmentClass::Plain | TreatmentClass::Unisolated);
            if as_it_is && matches!(observation.scope, Scope::Suite | Scope::File) {
                occasions.insert((observation.key, observation.index));
            }
            let Seen::Fail(failure) = &observation.seen else { continue };
            let (Some(number), Ok(signature)) =
                (numbers.get(test), u64::from_str_radix(&failure.failure.signature, 16))
            else {
                continue;
            };
            if of_test == MOST_OF_TEST || failing.rows.len() == MOST_FAILURES {
                continue;
            }
            of_test += 1;
            let attempt = format!("{} {}", observation.key, observation.index);
            failing.rows.push(FailureRow {
                test: *number,
                batch: Uuid::new_v5(&run, attempt.as_bytes()),
                signature,
                count: 1,
                at: observation.started_at,
                message: cut(&failure.failure.message, LONGEST_MESSAGE).to_owned(),
                class: Some(class),
                broke: None,
            });
        }
    }
    failing.occasions = occasions.len() as u64;
    failing
}

fn class_of(observation: &Observation, origin: RunOrigin, under: &World) -> TreatmentClass {
    let plain = observation.treatment.world.is_plain() && under.is_plain();
    let world = if plain { WorldClass::Plain } else { WorldClass::Changed };
    let source = match observation.treatment.other_source() {
        None => SourceClass::Submitted,
        Some(_) => SourceClass::Other,
    };
    TreatmentClass::of(origin, source, world, observation.level)
}
