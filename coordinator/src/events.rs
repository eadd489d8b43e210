//! What happens on the farm, as data. Progress bars, server-sent events and logs are consumers of
//! this one type; nothing prints from the engine.

use flakefarm_shared::{JobId, SweepId, TestId, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use uuid::Uuid;

/// Something that happened to a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A worker prepares the environment or lists the tests.
    Preparing {
        /// The sweep.
        sweep: SweepId,
        /// What it does, for people.
        doing: String,
    },
    /// The tests are known.
    Listed {
        /// The sweep.
        sweep: SweepId,
        /// How many are in the selection.
        tests: usize,
        /// Files that could not be collected.
        collection_errors: usize,
    },
    /// Attempts have ended.
    Progress {
        /// The sweep.
        sweep: SweepId,
        /// Attempts ended.
        attempts: u64,
        /// Attempts still wanted, as far as can be seen.
        remaining: u64,
        /// Estimated container seconds still wanted.
        remaining_seconds: f64,
        /// Tests seen to fail and to pass.
        flaky: usize,
        /// Tests that have only failed so far.
        failing: usize,
        /// Infrastructure errors.
        infrastructure_errors: u64,
        /// Workers' slots seen lately.
        slots: u32,
    },
    /// A loop of the coordinator fails and tries again. It concerns every sweep.
    Trouble {
        /// What stands still and why, for people.
        message: String,
        /// For how long it has failed.
        seconds: u64,
    },
    /// The sweep has ended; its report is there. Recorded.
    Finished {
        /// The sweep.
        sweep: SweepId,
        /// The state's word: `answered`, `interrupted`, `cancelled` or `failed`.
        state: String,
    },
    /// A sweep was submitted. Recorded.
    Submitted {
        /// The sweep.
        sweep: SweepId,
    },
    /// A test's verdict is another than the project's last sweep gave it. Recorded.
    VerdictChanged {
        /// The sweep that found it.
        sweep: SweepId,
        /// The test.
        test: TestId,
        /// The word of the verdict before.
        before: String,
        /// The word of the verdict now.
        now: String,
    },
    /// A job is dead: it failed too often, or nobody can read it. Recorded.
    JobDead {
        /// Its sweep.
        sweep: SweepId,
        /// The job.
        job: JobId,
        /// Why.
        reason: String,
    },
    /// A test entered quarantine, left it, or its time there is over. Recorded.
    QuarantineChanged {
        /// The sweep that was the reason, if one was.
        sweep: Option<SweepId>,
        /// The test.
        test: TestId,
        /// `entered`, `left` or `expired`.
        action: String,
        /// Why.
        why: String,
    },
    /// A firing of a schedule has no sweep, and gets none. Recorded.
    FiringFailed {
        /// The schedule's name.
        schedule: String,
        /// Why.
        why: String,
    },
    /// The control of a scheduled sweep says that the farm cannot be trusted. Recorded.
    FarmDoubted {
        /// The scheduled sweep.
        sweep: SweepId,
        /// What was missed, and what was accused.
        why: String,
    },
    /// A repair goes on. Recorded.
    RepairTold {
        /// The repair.
        repair: Uuid,
        /// What it does or has found, for people.
        line: String,
    },
    /// A repair is in another state. Recorded.
    RepairChanged {
        /// The repair.
        repair: Uuid,
        /// The state's word.
        state: String,
        /// What it is about, for people.
        about: String,
    },
    /// A worker has fallen silent without saying goodbye. Recorded.
    WorkerGone {
        /// Which.
        worker: WorkerId,
    },
}

impl Event {
    /// Whether it concerns `wanted`.
    pub fn concerns(&self, wanted: SweepId) -> bool {
        match self {
            Event::Preparing { sweep, .. }
            | Event::Listed { sweep, .. }
            | Event::Progress { sweep, .. }
            | Event::Finished { sweep, .. }
            | Event::Submitted { sweep }
            | Event::VerdictChanged { sweep, .. }
            | Event::FarmDoubted { sweep, .. }
            | Event::JobDead { sweep, .. } => *sweep == wanted,
            Event::QuarantineChanged { sweep, .. } => *sweep == Some(wanted),
            Event::Trouble { .. } => true,
            Event::FiringFailed { .. }
            | Event::RepairTold { .. }
            | Event::RepairChanged { .. }
            | Event::WorkerGone { .. } => false,
        }
    }

    /// Whether it is recorded, so that every coordinator's clients get it, and those who come later;
    /// others are only seen by who listens to the coordinator that works on the sweep.
    pub fn is_recorded(&self) -> bool {
        match self {
            Event::Finished { .. }
            | Event::Submitted { .. }
            | Event::VerdictChanged { .. }
            | Event::JobDead { .. }
            | Event::QuarantineChanged { .. }
            | Event::FiringFailed { .. }
            | Event::FarmDoubted { .. }
            | Event::RepairTold { .. }
            | Event::RepairChanged { .. }
            | Event::WorkerGone { .. } => true,
            Event::Preparing { .. }
            | Event::Listed { .. }
            | Event::Progress { .. }
            | Event::Trouble { .. } => false,
        }
    }
}

/// Where events are sent; slow subscribers miss some.
#[derive(Debug, Clone)]
pub struct Events(broadcast::Sender<Event>);

impl Default for Events {
    fn default() -> Self {
        Self(broadcast::channel(1024).0)
    }
}

impl Events {
    /// Tells whoever listens.
    pub fn send(&self, event: Event) {
        // An error means that nobody listens, which is fine.
        let _nobody = self.0.send(event);
    }

    /// What happens from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.0.subscribe()
    }
}
