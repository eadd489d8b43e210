//! Who is presumed dead, and which copy of a job may run: pure decisions over what is recorded.
//!
//! A lease begins with a worker's first sign of life: a job that waits costs nothing, however long. And
//! silence of everybody says nothing of anybody: leases are judged, and redelivered jobs handed over,
//! only by a coordinator that has heard workers for a while without a gap. After an outage workers come
//! back one after the other; the first is not to inherit what the others still hold.

use crate::db::{JobRow, JobState};
use flakefarm_shared::message::BEAT;
use flakefarm_shared::{UnixMicros, WorkerId};
use std::time::{Duration, Instant};

/// Between two messages of workers, beyond which nobody was heard.
const GAP: Duration = BEAT.saturating_mul(2);
/// For workers to be heard again before anyone is judged: their links come back, and what they had
/// sent meanwhile is read.
pub(super) const GRACE: Duration = Duration::from_secs(20);
/// A wall clock that differs so much from the steady one has been set.
const CLOCK_SET: Duration = Duration::from_secs(5);
/// A redelivered job whose earlier worker has said nothing of it for so long, since it came back and
/// while workers were heard, is the new worker's.
pub const PRESUMED_DEAD: Duration = Duration::from_secs(15);
/// The shortest lease: within it an outage may have lain that was too short to be noticed as a gap,
/// and then time to come back.
const SHORTEST_LEASE: Duration = GAP.saturating_add(GRACE);
/// Lost leases after which a job is dead: it has silenced that many workers.
pub(super) const LOST_LEASES: u32 = 5;

/// Since when workers are heard without a gap.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    since: Option<Instant>,
    last: Option<(Instant, UnixMicros)>,
}

impl Hearing {
    /// Messages of workers were recorded.
    pub(super) fn heard(&mut self, now: Instant, clock: UnixMicros) {
        if !self.continues(now, clock) {
            self.since = Some(now);
        }
        self.last = Some((now, clock));
    }

    /// Whether leases may be judged.
    pub(super) fn may_judge(&self, now: Instant, clock: UnixMicros) -> bool {
        self.heard_for(now, clock) >= GRACE
    }

    /// For how long workers have been heard without a gap.
    pub(super) fn heard_for(&self, now: Instant, clock: UnixMicros) -> Duration {
        match self.since {
            Some(since) if self.continues(now, clock) => now.saturating_duration_since(since),
            Some(_) | None => Duration::ZERO,
        }
    }

    fn continues(&self, now: Instant, clock: UnixMicros) -> bool {
        let Some((last, then)) = self.last else { return false };
        let steady = now.saturating_duration_since(last);
        let wall = clock.saturating_sub(then);
        let drift = wall.saturating_sub(micros(steady)).unsigned_abs();
        steady <= GAP && u128::from(drift) <= CLOCK_SET.as_micros()
    }
}

/// How long a worker may say nothing of a job in its hand, where `lease` is asked for.
pub(super) fn patience(lease: Duration) -> Duration {
    lease.max(SHORTEST_LEASE)
}

/// Whether a worker may run a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may.
    Run,
    /// It is settled, superseded or another's.
    Drop,
    /// Its sweep does not run now: drop it, and take the publication back for when it does.
    TakeBack,
    /// Not known yet; it will ask again.
    Wait,
}

/// What a worker asks.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Who.
    pub worker: &'a WorkerId,
    /// Of which publication.
    pub publication: u32,
    /// How long it has held the message.
    pub held: Duration,
    /// How often a worker was given the message before.
    pub returns: u32,
    /// For how long workers have been heard without a gap.
    pub heard_for: Duration,
}

/// Decides by the job's row (none if it is not known) and whether its sweep is running.
pub fn decide(row: Option<&JobRow>, sweep_runs: bool, asked: Asked<'_>, now: UnixMicros) -> Decision {
    let Some(row) = row else { return Decision::Drop };
    if asked.publication < row.begun {
        return Decision::Drop;
    }
    match &row.state {
        JobState::Settled { .. } => Decision::Drop,
        // What somebody may have in hand is taken back with what comes of it, or when its lease runs out.
        JobState::Queued { worker: None, .. } if !sweep_runs && asked.returns == 0 => Decision::TakeBack,
        JobState::Pending { .. } | JobState::Queued { .. } if !sweep_runs => Decision::Drop,
        // Sent and not yet recorded as queued, or taken back and about to be begun anew.
        JobState::Pending { .. } => Decision::Wait,
        JobState::Queued { worker: None, .. } if asked.returns == 0 => Decision::Run,
        JobState::Queued { worker: Some(worker), .. } if worker == asked.worker => Decision::Run,
        JobState::Queued { worker, last_news, .. } => {
            let since = now.saturating_sub(micros(asked.held));
            if worker.is_some() && *last_news > since {
                // The other one spoke of it after this one had received it.
                Decision::Drop
            } else if asked.held.min(asked.heard_for) >= PRESUMED_DEAD {
                Decision::Run
            } else {
                Decision::Wait
            }
        }
    }
}

pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Settlement;
    use flakefarm_shared::{Class, JobId, Payload, SweepId};

    const SECOND: UnixMicros = 1_000_000;
    const NOW: UnixMicros = 1_000 * SECOND;

    fn queued(publication: u32, worker: Option<&str>, last_news: UnixMicros) -> JobRow {
        let worker = worker.map(|name| WorkerId(name.to_owned()));
        JobRow {
            id: JobId::new(),
            sweep: SweepId::new(),
            key: "k".to_owned(),
            class: Class::Bulk,
            spec: Payload::Inline(Vec::new()),
            attempts: 1,
            created_at: 0,
            state: JobState::Queued { publication, since: 0, worker, last_news },
            publications: publication,
            infra_failures: 0,
            last_error: None,
            begun: publication,
            lost_leases: 0,
            made: None,
            again: 0,
            taken: 0,
        }
    }

    #[test]
    fn only_one_copy_may_run() {
        let me = WorkerId("me".to_owned());
        let check = |row: &JobRow, runs, publication, held, expect| {
            let held = Duration::from_secs(held);
            let asked = Asked { worker: &me, publication, held, returns: 0, heard_for: held };
            assert_eq!(decide(Some(row), runs, asked, NOW), expect, "{row:?} {publication} {held:?}");
        };
        let waiting = queued(2, None, 0);
        check(&waiting, true, 2, 0, Decision::Run);
        check(&waiting, true, 1, 0, Decision::Drop);
        check(&waiting, false, 2, 0, Decision::TakeBack);
        check(&queued(2, Some("other"), NOW), false, 2, 0, Decision::Drop);
        check(&queued(2, Some("me"), NOW), false, 2, 0, Decision::Drop);
        check(&JobRow { begun: 3, ..waiting.clone() }, true, 2, 99, Decision::Drop);
        check(&queued(1, Some("me"), NOW), true, 1, 0, Decision::Run);
        let theirs = queued(1, Some("other"), NOW - 4 * SECOND);
        check(&theirs, true, 1, 3, Decision::Wait);
        check(&theirs, true, 1, 5, Decision::Drop);
        let silent = queued(1, Some("other"), NOW - 600 * SECOND);
        check(&silent, true, 1, 14, Decision::Wait);
        check(&silent, true, 1, 15, Decision::Run);
        let pending = JobState::Pending { available_at: 0 };
        check(&JobRow { state: pending, ..waiting.clone() }, true, 2, 99, Decision::Wait);
        let settled = JobState::Settled { settlement: Settlement::Cancelled, at: 0 };
        check(&JobRow { state: settled, ..waiting }, true, 2, 99, Decision::Drop);
        let long = Duration::from_secs(600);
        let asked = Asked { worker: &me, publication: 1, held: Duration::ZERO, returns: 1, heard_for: long };
        assert_eq!(decide(None, true, asked, NOW), Decision::Drop);
        // Its earlier worker may be about to be heard again, as this one has just been.
        let asked = Asked { held: long, heard_for: Duration::from_secs(14), ..asked };
        assert_eq!(decide(Some(&silent), true, asked, NOW), Decision::Wait);
        // It was taken just before the outage: who took it has not said so yet.
        let untold = queued(1, None, NOW);
        let asked = Asked { held: Duration::from_secs(14), heard_for: long, ..asked };
        assert_eq!(decide(Some(&untold), true, asked, NOW), Decision::Wait);
        let asked = Asked { held: PRESUMED_DEAD, ..asked };
        assert_eq!(decide(Some(&untold), true, asked, NOW), Decision::Run);
    }

    #[test]
    fn an_outage_longer_than_a_lease_ends_no_lease() {
        let begin = Instant::now();
        let at = |seconds: u64| (begin + Duration::from_secs(seconds), NOW + seconds as i64 * SECOND);
        let lease = Duration::from_secs(10);
        // Two workers are heard every 5 s, then nobody; afterwards one at once, the other within GRACE.
        for outage in 1..60 {
            let mut hearing = Hearing::default();
            let cut = 100;
            for second in (0..=cut).step_by(5) {
                hearing.heard(at(second).0, at(second).1);
            }
            let last_news = at(cut).1;
            let other_is_back = cut + outage + GRACE.as_secs();
            for second in cut..other_is_back {
                if second >= cut + outage && (second - cut - outage).is_multiple_of(5) {
                    hearing.heard(at(second).0, at(second).1);
                }
                let (now, clock) = at(second);
                let judged = hearing.may_judge(now, clock) && last_news < clock - micros(patience(lease));
                assert!(!judged, "an outage of {outage} s, after {} s", second - cut);
            }
        }
    }

    #[test]
    fn nobody_is_judged_by_one_who_was_deaf() {
        let begin = Instant::now();
        let at = |seconds: u64| (begin + Duration::from_secs(seconds), NOW + seconds as i64 * SECOND);
        let mut hearing = Hearing::default();
        let judges = |hearing: &Hearing, (now, clock)| hearing.may_judge(now, clock);
        assert!(!judges(&hearing, at(1_000)), "at start");
        for second in (0..20).step_by(5) {
            assert!(!judges(&hearing, at(second)), "after {second} s");
            hearing.heard(at(second).0, at(second).1);
        }
        assert!(judges(&hearing, at(20)));
        hearing.heard(at(20).0, at(20).1);
        assert!(!judges(&hearing, at(60)), "nobody was heard for a while");
        hearing.heard(at(60).0, at(60).1);
        assert!(!judges(&hearing, at(61)), "a pause has just ended");
        for second in (65..=80).step_by(5) {
            hearing.heard(at(second).0, at(second).1);
        }
        assert!(judges(&hearing, at(80)));
        let (now, clock) = at(81);
        assert!(!hearing.may_judge(now, clock + 3_600 * SECOND), "the clock was set");
        hearing.heard(now, clock + 3_600 * SECOND);
        assert!(!hearing.may_judge(now, clock + 3_600 * SECOND));
    }
}
