//! Which loops cannot go on, since when and why. A loop that fails tries again for ever; whoever
//! watches (a progress line, an embedded sweep) may not want to wait that long.

use super::EngineError;
use crate::events::{Event, Events};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tracing::warn;

/// What one loop does, named after what stands still while it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// Reading what is recorded, planning, scoring.
    Planning,
    /// Publishing jobs.
    Publishing,
    /// Recording what workers say.
    Recording,
    /// Recording dead jobs.
    Burying,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Step::Planning => "planning stands still",
            Step::Publishing => "jobs cannot be published",
            Step::Recording => "what workers say cannot be recorded",
            Step::Burying => "dead jobs cannot be recorded",
        }
    }
}

/// The loops in trouble, since when. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<HashMap<Step, Instant>>>);

impl Troubles {
    /// Notes how a step went; tells the log and whoever listens when it failed. An error later than
    /// the first keeps the first's time.
    pub(super) fn note(&self, step: Step, result: &Result<(), EngineError>, events: &Events) {
        let mut since = self.0.lock().expect("nobody panics while holding the lock");
        let Err(error) = result else {
            since.remove(&step);
            return;
        };
        let began = *since.entry(step).or_insert_with(Instant::now);
        let message = format!("{}: {}", step.words(), flakefarm_shared::chain(error));
        warn!("{message}; will try again");
        events.send(Event::Trouble { message, seconds: began.elapsed().as_secs() });
    }
}
