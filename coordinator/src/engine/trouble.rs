//! Which loops cannot go on, since when and why. A loop that fails tries again for ever; whoever
//! watches (a progress line, an embedded sweep) may not want to wait that long.

use super::EngineError;
use crate::events::{Event, Events};
use flakefarm_shared::metrics::catalogue::{LOOP_FAILURES, LOOP_LAG};
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
    /// Asking for repairs of what schedules have found.
    Proposing,
    /// Carrying out repairs.
    Repairing,
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
    const ALL: [Step; 13] = [
        Step::Planning,
        Step::Publishing,
        Step::Recording,
        Step::RecordingDead,
        Step::Storing,
        Step::Relaying,
        Step::Scheduling,
        Step::Proposing,
        Step::Repairing,
        Step::Housekeeping,
        Step::Notifying,
        Step::Collecting,
        Step::Leading,
    ];

    /// As a label's value.
    fn word(self) -> &'static str {
        match self {
            Step::Planning => "planning",
            Step::Publishing => "publishing",
            Step::Recording => "recording",
            Step::RecordingDead => "recording_dead",
            Step::Storing => "storing",
            Step::Relaying => "relaying",
            Step::Scheduling => "scheduling",
            Step::Proposing => "proposing",
            Step::Repairing => "repairing",
            Step::Housekeeping => "housekeeping",
            Step::Notifying => "notifying",
            Step::Collecting => "collecting",
            Step::Leading => "leading",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Planning => "planning stands still",
            Step::Publishing => "jobs cannot be published",
            Step::Recording => "what workers say cannot be recorded",
            Step::RecordingDead => "dead jobs cannot be recorded",
            Step::Storing => "nothing can be stored",
            Step::Relaying => "events cannot be read",
            Step::Scheduling => "schedules cannot fire",
            Step::Proposing => "no repair is proposed",
            Step::Repairing => "repairs stand still",
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
    message: String,
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
        LOOP_FAILURES.count(&[step.word()]);
        let trouble = troubles.entry(step).or_insert_with(|| Trouble {
            since: Instant::now(),
            message: String::new(),
            logged: None,
        });
        let message = format!("{}: {}", step.words(), flakefarm_shared::chain(error));
        trouble.message.clone_from(&message);
        let seconds = trouble.since.elapsed().as_secs();
        if trouble.logged.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            trouble.logged = Some(Instant::now());
            warn!(trouble.seconds = seconds, "{message}; will try again");
        }
        events.send(Event::Trouble { message, seconds });
    }

    /// What stands still and why, for people, and for how long, the longest first.
    pub(super) fn now(&self) -> Vec<(String, Duration)> {
        let troubles = self.0.lock().expect("nobody panics while holding the lock");
        let mut now: Vec<(String, Duration)> =
            troubles.values().map(|trouble| (trouble.message.clone(), trouble.since.elapsed())).collect();
        now.sort_by_key(|(_, since)| std::cmp::Reverse(*since));
        now
    }

    /// Notes for each loop how long it has not gone well.
    pub(super) fn gauge(&self) {
        let troubles = self.0.lock().expect("nobody panics while holding the lock");
        for step in Step::ALL {
            let lag = troubles.get(&step).map_or(0.0, |trouble| trouble.since.elapsed().as_secs_f64());
            LOOP_LAG.set(&[step.word()], lag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::metrics::catalogue::LOOPS;

    #[test]
    fn each_loop_has_a_series() {
        assert_eq!(Step::ALL.map(Step::word), LOOPS);
    }
}
