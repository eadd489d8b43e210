//! Which loops cannot go on, since when and why. A loop that fails tries again for ever; whoever
//! watches (a progress line, an embedded sweep) may not want to wait that long.

use super::EngineError;
use crate::events::{Event, Events};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tracing::{info, warn};

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
    RecordingDead,
    /// Storing what is large.
    Storing,
    /// Reading what other coordinators have recorded.
    Relaying,
    /// Firing schedules.
    Scheduling,
    /// Forgetting what is old.
    Housekeeping,
    /// Telling what has happened.
    Notifying,
    /// Summing up samples.
    Collecting,
    /// Holding the lease under which the loops run.
    Leading,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Step::Planning => "planning stands still",
            Step::Publishing => "jobs cannot be published",
            Step::Recording => "what workers say cannot be recorded",
            Step::RecordingDead => "dead jobs cannot be recorded",
            Step::Storing => "nothing can be stored",
            Step::Relaying => "events cannot be read",
            Step::Scheduling => "schedules cannot fire",
            Step::Housekeeping => "what is old cannot be forgotten",
            Step::Notifying => "nobody is notified",
            Step::Collecting => "samples cannot be summed up",
            Step::Leading => "no coordinator can lead",
        }
    }
}

/// Between two lines of the log on the same trouble.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The loops in trouble, since when. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<HashMap<Step, Trouble>>>);

#[derive(Debug)]
struct Trouble {
    since: Instant,
    logged: Option<Instant>,
}

impl Troubles {
    /// Notes how a step went; tells whoever listens when it failed, and the log once a minute. An error
    /// later than the first keeps the first's time.
    pub(super) fn note(&self, step: Step, result: &Result<(), EngineError>, events: &Events) {
        let mut troubles = self.0.lock().expect("nobody panics while holding the lock");
        let Err(error) = result else {
            if let Some(trouble) = troubles.remove(&step) {
                let seconds = trouble.since.elapsed().as_secs();
                info!(trouble.seconds = seconds, "it goes on again: no more that {}", step.words());
            }
            return;
        };
        let trouble = troubles.entry(step).or_insert(Trouble { since: Instant::now(), logged: None });
        let message = format!("{}: {}", step.words(), flakefarm_shared::chain(error));
        let seconds = trouble.since.elapsed().as_secs();
        if trouble.logged.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            trouble.logged = Some(Instant::now());
            warn!(trouble.seconds = seconds, "{message}; will try again");
        }
        events.send(Event::Trouble { message, seconds });
    }
}
