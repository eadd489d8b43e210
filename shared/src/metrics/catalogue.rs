//! Every metric there is: its name, kind, labels, and whose it is. Dashboards and alerts are made of these.

use super::Kind::{Counter, Gauge, Histogram};
use super::Owner::{Both, Coordinator, Worker};
use super::Seeds::{None as NoSeeds, Only, Product};
use super::{Kind, Metric};

/// [`crate::WIRE_VERSION`] as a label's value.
pub(super) const WIRE: &str = "1";

/// Requests: from below a millisecond to a deadline.
const REQUESTS: Kind =
    Histogram(&[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]);
/// Phases of attempts: from a fork to an image that is built.
const PHASES: Kind =
    Histogram(&[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0]);

const CLASSES: &[&str] = &["interactive", "bulk"];
const LEVELS: &[&str] = &["container", "nested", "forked", "host", "process"];
const STORES: &[&[&str]] = &[
    &["database", "statement"],
    &["queue", "publish"],
    &["queue", "depth"],
    &["samples", "append"],
    &["samples", "read"],
    &["blobs", "put"],
    &["blobs", "get"],
    &["blobs", "find"],
];
/// The loops of a coordinator.
pub const LOOPS: &[&str] = &[
    "planning",
    "publishing",
    "recording",
    "recording_dead",
    "storing",
    "relaying",
    "scheduling",
    "proposing",
    "repairing",
    "housekeeping",
    "notifying",
    "collecting",
    "leading",
];

macro_rules! metrics {
    ($($owner:ident { $(
        $(#[doc = $help:literal])+
        $ident:ident: $kind:expr, $name:literal, [$($label:literal),*], $seeds:expr;
    )+ })+) => {
        $($(
            $(#[doc = $help])+
            pub static $ident: Metric =
                Metric::new($name, $kind, $owner, &[$($label),*], $seeds, concat!($($help),+).trim_ascii());
        )+)+

        /// All of them, those of both roles first.
        pub static CATALOGUE: &[&Metric] = &[$($(&$ident),+),+];
    };
}

metrics! {
    Both {
        /// What runs, as labels of a constant 1.
        BUILD_INFO: Gauge, "flakefarm_build_info", ["role", "version", "wire"], NoSeeds;
        /// How late the process's own ticks came, at worst within the last minute.
        RUNTIME_LAG: Gauge, "flakefarm_runtime_lag_seconds", [], Product(&[]);
        /// Time of requests to stores.
        STORE_REQUESTS: REQUESTS, "flakefarm_store_request_seconds", ["store", "operation"], Only(STORES);
        /// Requests to stores that failed.
        STORE_ERRORS: Counter, "flakefarm_store_errors_total", ["store", "operation"], Only(STORES);
        /// Points that were appended to the sample store.
        SAMPLES: Counter, "flakefarm_samples_total", ["result"], Product(&[&["new", "duplicate"]]);
        /// CPU time of this process.
        CPU: Counter, "process_cpu_seconds_total", [], Product(&[]);
        /// Memory of this process.
        RESIDENT: Gauge, "process_resident_memory_bytes", [], Product(&[]);
        /// Files that this process has open.
        OPEN_FILES: Gauge, "process_open_fds", [], Product(&[]);
        /// When this process started, since the Unix epoch.
        STARTED: Gauge, "process_start_time_seconds", [], Product(&[]);
    }
    Coordinator {
        /// Messages that wait in the broker.
        QUEUE_READY: Gauge, "flakefarm_queue_ready", ["class"], Product(&[CLASSES]);
        /// How long the oldest job on the queue has waited for a worker; 0 if none waits.
        QUEUE_AGE: Gauge, "flakefarm_queue_age_seconds", ["class"], Product(&[CLASSES]);
        /// Jobs of running sweeps: not on the queue yet, on it, in the hand of a worker.
        JOBS: Gauge, "flakefarm_jobs", ["class", "state"], Product(&[CLASSES, &["pending", "queued", "leased"]]);
        /// Attempts that these jobs have between them.
        ATTEMPTS_LEFT: Gauge, "flakefarm_attempts_left", ["class"], Product(&[CLASSES]);
        /// Dead jobs that nobody has discarded.
        DEAD_JOBS: Gauge, "flakefarm_dead_jobs", [], Product(&[]);
        /// Messages that nobody can read.
        PARKED: Gauge, "flakefarm_parked_messages", [], Product(&[]);
        /// Jobs given to the queue, by what it said.
        PUBLICATIONS: Counter, "flakefarm_publications_total", ["class", "result"],
            Product(&[CLASSES, &["confirmed", "full", "failed"]]);
        /// Jobs taken back to be published again.
        REPUBLICATIONS: Counter, "flakefarm_republications_total", ["cause"],
            Product(&[&["lease_lost", "broker_lost", "handed_back", "infrastructure", "given_up"]]);
        /// Workers that were set aside in a sweep, since something was wrong with their machine.
        SET_ASIDE: Counter, "flakefarm_workers_set_aside_total", [], Product(&[]);
        /// Jobs that have ended.
        JOBS_ENDED: Counter, "flakefarm_jobs_ended_total", ["end"],
            Product(&[&["done", "refused", "cancelled", "dead"]]);
        /// Messages of workers.
        WORKER_MESSAGES: Counter, "flakefarm_worker_messages_total", ["kind"], Product(&[&["beat", "ask", "ended"]]);
        /// Sweeps that have not ended.
        SWEEPS: Gauge, "flakefarm_sweeps", ["state"], Product(&[&["running", "interrupted"]]);
        /// Sweeps that have ended.
        SWEEPS_ENDED: Counter, "flakefarm_sweeps_ended_total", ["state"],
            Product(&[&["answered", "failed", "cancelled", "interrupted"]]);
        /// Workers.
        WORKERS: Gauge, "flakefarm_workers", ["state"], Product(&[&["busy", "free", "draining", "silent"]]);
        /// Slots of workers that live and do not drain.
        FARM_SLOTS: Gauge, "flakefarm_farm_slots", ["state"], Product(&[&["busy", "free"]]);
        /// Whether this process runs the loops that this lease is for.
        LEASE_HELD: Gauge, "flakefarm_lease_held", ["lease"],
            Product(&[&["work", "housekeeping", "history", "schedules", "notifications"]]);
        /// For how long a loop has not gone well; 0 if it goes well, or another process runs it.
        LOOP_LAG: Gauge, "flakefarm_loop_lag_seconds", ["loop"], Product(&[LOOPS]);
        /// Rounds of a loop that failed.
        LOOP_FAILURES: Counter, "flakefarm_loop_failures_total", ["loop"], Product(&[LOOPS]);
        /// Controls beside scheduled sweeps that say that the farm cannot be trusted.
        FARM_DOUBTS: Counter, "flakefarm_farm_doubts_total", [], Product(&[]);
        /// Time of requests to this process.
        HTTP_REQUESTS: REQUESTS, "flakefarm_http_request_seconds", ["method", "route", "status"], NoSeeds;
        /// Whether a store answered when the farm's gauges were read.
        UP: Gauge, "flakefarm_up", ["store"], Product(&[&["database", "queue"]]);
        /// What the database takes.
        DATABASE_BYTES: Gauge, "flakefarm_database_bytes", [], Product(&[]);
    }
    Worker {
        /// Jobs that this worker does at once.
        SLOTS: Gauge, "flakefarm_slots", [], Product(&[]);
        /// Jobs in this worker's hand.
        JOBS_IN_HAND: Gauge, "flakefarm_jobs_in_hand", [], Product(&[]);
        /// Attempts that run here now.
        ATTEMPTS_RUNNING: Gauge, "flakefarm_attempts_running", [], Product(&[]);
        /// Attempts that have ended here, by how and by the isolation they had.
        ATTEMPTS: Counter, "flakefarm_attempts_total", ["outcome", "level"],
            Product(&[&["completed", "interrupted", "nothing_ran", "infrastructure"], LEVELS]);
        /// Errors of infrastructure, which are no failures of tests.
        INFRASTRUCTURE_ERRORS: Counter, "flakefarm_infrastructure_errors_total", ["kind"],
            Product(&[&["engine", "environment", "blobs", "samples", "sandbox", "worker"]]);
        /// Time of each phase: the environment of a job, the start of a sandbox, the run of an attempt, and
        /// what a job has made on its way home.
        PHASE: PHASES, "flakefarm_phase_seconds", ["phase"],
            Product(&[&["environment", "sandbox_start", "run", "report"]]);
        /// Publications of jobs that have ended here.
        WORKER_JOBS: Counter, "flakefarm_worker_jobs_total", ["end"],
            Product(&[&["done", "handed_back", "retryable", "refused", "dropped"]]);
        /// What lies on disk until a server is back.
        SPOOL_BYTES: Gauge, "flakefarm_spool_bytes", [], Product(&[]);
        /// Files of it: one for each publication.
        SPOOL_FILES: Gauge, "flakefarm_spool_files", [], Product(&[]);
        /// Whether this worker takes no more jobs.
        DRAINING: Gauge, "flakefarm_draining", [], Product(&[]);
        /// Whether what was made waits for a server that is away.
        TROUBLE: Gauge, "flakefarm_trouble", [], Product(&[]);
        /// Signs of life.
        BEATS: Counter, "flakefarm_beats_total", ["result"], Product(&[&["sent", "failed"]]);
        /// Time since the last sign of life was sent.
        BEAT_AGE: Gauge, "flakefarm_beat_age_seconds", [], Product(&[]);
        /// Leftover sandboxes that were removed.
        REAPED: Counter, "flakefarm_sandboxes_reaped_total", [], Product(&[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{InfraStage, SandboxLevel, WIRE_VERSION};

    #[test]
    fn values_of_labels_are_the_words_of_their_types() {
        assert_eq!(WIRE, WIRE_VERSION.to_string());
        assert_eq!(SandboxLevel::ALL.map(SandboxLevel::word).as_slice(), LEVELS);
        assert_eq!(CLASSES, crate::Class::ALL.map(crate::Class::word));
        let kinds = InfraStage::ALL.map(InfraStage::word);
        assert!(matches!(INFRASTRUCTURE_ERRORS.seeds, Product([known]) if *known == kinds));
    }
}
