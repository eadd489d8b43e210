//! The coordinator's own decision, asked about a modelled row.

use crate::model::{Message, Row, State, Sweep};
use flakefarm_coordinator::db::{JobRow, JobState, Settlement};
use flakefarm_coordinator::engine::leases::{Asked, Decision, PRESUMED_DEAD, decide};
use flakefarm_shared::{Class, JobId, Payload, SweepId, UnixMicros, WorkerId};
use std::time::Duration;
use uuid::Uuid;

/// The moment at which everything is decided.
const NOW: UnixMicros = 1_000_000_000;

pub(crate) fn worker(number: usize) -> WorkerId {
    WorkerId(format!("worker {number}"))
}

/// What `asker` is answered. `late`: it has waited for a sign of life of whoever had the job.
pub(crate) fn decision(row: &Row, sweep: Sweep, message: Message, asker: usize, late: bool) -> Decision {
    let settled = |settlement| JobState::Settled { settlement, at: 0 };
    let state = match row.state {
        State::Pending => JobState::Pending { available_at: 0 },
        State::Queued(holder) => JobState::Queued {
            publication: u32::from(row.publications),
            since: 0,
            worker: holder.map(worker),
            last_news: 0,
        },
        State::Done(_) => settled(Settlement::Done { report: Payload::Inline(Vec::new()) }),
        State::Cancelled => settled(Settlement::Cancelled),
        State::Dead => settled(Settlement::Dead { reason: "killed workers".to_owned() }),
    };
    let row = JobRow {
        id: JobId(Uuid::nil()),
        sweep: SweepId(Uuid::nil()),
        key: String::new(),
        class: Class::Bulk,
        spec: Payload::Inline(Vec::new()),
        attempts: 1,
        created_at: 0,
        state,
        publications: u32::from(row.publications),
        infra_failures: 0,
        last_error: None,
        begun: u32::from(row.begun),
        lost_leases: u32::from(row.lost_leases),
        made: None,
        again: 0,
        taken: u32::from(row.taken),
    };
    let held = if late { PRESUMED_DEAD } else { Duration::ZERO };
    let asked = Asked {
        worker: &worker(asker),
        publication: u32::from(message.publication),
        held,
        returns: u32::from(message.returns),
        heard_for: held,
    };
    decide(Some(&row), sweep == Sweep::Running, asked, NOW)
}
