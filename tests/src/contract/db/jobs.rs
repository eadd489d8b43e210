//! The laws of jobs: published, leased, requeued, settled once.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

use super::{AWKWARD, NOW, SECOND, job, keys, new_job, pending_job, queued_job, running_sweep, settlements};
use flakefarm_coordinator::db::{Db, DbError, JobState, ParkedRow, Settled, Settlement, SweepState};
use flakefarm_shared::{Class, JobId, Payload, SweepId, WorkerId};
use std::time::Duration;

/// Planning the same step twice records it once, and leaves what happened to it meanwhile.
pub async fn job_inserted_again_stays_as_it_is(db: &Db) {
    let sweep = running_sweep(db).await;
    let jobs: Vec<_> = (0..1_300).map(|n| new_job(sweep, &format!("{n} {AWKWARD}"), Class::Bulk)).collect();
    assert_eq!(db.insert_jobs(sweep, &jobs[..700], NOW).await.unwrap(), 700);
    db.settle_job(jobs[3].id, &Settlement::Cancelled, NOW).await.unwrap();
    assert_eq!(db.insert_jobs(sweep, &jobs, NOW + 1).await.unwrap(), 600);
    assert_eq!(db.insert_jobs(sweep, &jobs, NOW + 2).await.unwrap(), 0);
    let rows = db.jobs(sweep).await.unwrap();
    let standings = db.job_standings(sweep).await.unwrap();
    let settled: Vec<_> = standings.iter().filter(|job| job.settled).map(|job| job.id).collect();
    assert_eq!(settled, [jobs[3].id]);
    let asked: Vec<_> = standings.iter().map(|job| job.id).chain([JobId::derive(sweep, "none")]).collect();
    assert_eq!(asked[..1_300], jobs.iter().map(|job| job.id).collect::<Vec<_>>());
    let mut found = db.jobs_by_id(&asked).await.unwrap();
    found.sort_by_key(|row| asked.iter().position(|id| *id == row.id));
    assert_eq!(found, rows);
    assert_eq!(
        rows.iter().map(|row| &row.key).collect::<Vec<_>>(),
        jobs.iter().map(|job| &job.key).collect::<Vec<_>>(),
        "in the order they were planned"
    );
    assert_eq!(rows[3].state, JobState::Settled { settlement: Settlement::Cancelled, at: NOW });
    assert_eq!(rows[4].created_at, NOW);
    let stray = SweepId::new();
    let refused = db.insert_jobs(stray, &[new_job(stray, "stray", Class::Bulk)], NOW).await;
    assert!(matches!(refused, Err(DbError::NotFound(_))), "{refused:?}");
}

/// Of one class, the oldest first; only what is due, and only of running sweeps.
pub async fn publishable_jobs_are_due_and_urgent_first(db: &Db) {
    let sweep = running_sweep(db).await;
    let interrupted = running_sweep(db).await;
    db.insert_jobs(interrupted, &[new_job(interrupted, "stopped", Class::Interactive)], NOW).await.unwrap();
    db.finish_sweep(interrupted, &SweepState::Interrupted, NOW, None).await.unwrap();
    let bulk: Vec<_> = ["z", "m", "a"].iter().map(|key| new_job(sweep, key, Class::Bulk)).collect();
    db.insert_jobs(sweep, &bulk, NOW).await.unwrap();
    db.insert_jobs(sweep, &[new_job(sweep, "older", Class::Bulk)], NOW - 1).await.unwrap();
    db.insert_jobs(sweep, &[new_job(sweep, "urgent", Class::Interactive)], NOW + 1).await.unwrap();
    let publishable = async |class, now, limit| db.publishable(class, now, limit).await.unwrap();
    assert_eq!(keys(&publishable(Class::Interactive, NOW + 1, 10).await), ["urgent"]);
    assert_eq!(keys(&publishable(Class::Bulk, NOW + 1, 10).await), ["older", "z", "m", "a"]);
    assert_eq!(keys(&publishable(Class::Bulk, NOW + 1, 2).await), ["older", "z"]);
    assert_eq!(keys(&publishable(Class::Interactive, NOW, 10).await), [""; 0]);
    db.mark_queued(&[(bulk[0].id, 1)], NOW).await.unwrap();
    db.mark_queued(&[(bulk[1].id, 1)], NOW).await.unwrap();
    db.requeue_job(bulk[1].id, NOW + SECOND, Some("engine down".to_owned())).await.unwrap();
    assert_eq!(keys(&publishable(Class::Bulk, NOW, 10).await), ["older", "a"]);
    assert_eq!(keys(&publishable(Class::Bulk, NOW + SECOND, 10).await), ["older", "m", "a"]);
    assert_eq!(db.count_queued(Class::Bulk).await.unwrap(), 1);
    assert_eq!(db.count_queued(Class::Interactive).await.unwrap(), 0);
    db.resume_sweep(interrupted).await.unwrap();
    assert_eq!(keys(&publishable(Class::Interactive, NOW, 1).await), ["stopped"]);
}

/// A job is overdue when the worker that has it has not spoken of it for the lease. One that waits for
/// a worker is never overdue, however long.
pub async fn touched_job_is_not_overdue(db: &Db) {
    let sweep = running_sweep(db).await;
    let unclaimed = queued_job(db, sweep, "unclaimed").await;
    let silent = queued_job(db, sweep, "silent").await;
    db.touch_jobs(&[(silent, 1)], &WorkerId("gone".to_owned()), 0, NOW).await.unwrap();
    let alive = queued_job(db, sweep, "alive").await;
    let waiting = pending_job(db, sweep, "waiting").await;
    let lease = Duration::from_secs(60);
    let worker = WorkerId(AWKWARD.to_owned());
    db.touch_jobs(&[(alive, 1), (waiting, 1), (JobId::new(), 1)], &worker, 0, NOW + 50 * SECOND)
        .await
        .unwrap();
    db.touch_jobs(&[], &worker, 0, NOW + 50 * SECOND).await.unwrap();
    assert_eq!(keys(&db.overdue(NOW + 60 * SECOND, lease).await.unwrap()), Vec::<&str>::new());
    assert_eq!(keys(&db.overdue(NOW + 61 * SECOND, lease).await.unwrap()), ["silent"]);
    assert_eq!(keys(&db.overdue(NOW + 111 * SECOND, lease).await.unwrap()), ["silent", "alive"]);
    assert_eq!(
        job(db, alive).await.state,
        JobState::Queued {
            publication: 1,
            since: NOW,
            worker: Some(worker.clone()),
            last_news: NOW + 50 * SECOND
        }
    );
    assert_eq!(job(db, waiting).await.state, JobState::Pending { available_at: NOW });
    db.touch_jobs(&[(alive, 1)], &worker, 0, NOW).await.unwrap();
    let JobState::Queued { last_news, .. } = job(db, alive).await.state else { panic!("it is queued") };
    assert_eq!(last_news, NOW + 50 * SECOND, "late news do not shorten a lease");
    db.touch_jobs(&[(alive, 2), (alive, 0)], &worker, 0, NOW + 90 * SECOND).await.unwrap();
    assert_eq!(
        keys(&db.overdue(NOW + 111 * SECOND, lease).await.unwrap()),
        ["silent", "alive"],
        "another publication"
    );
    assert_eq!(db.waiting(Class::Bulk, NOW + 1).await.unwrap(), [(unclaimed, 1)]);
    assert_eq!(db.waiting(Class::Bulk, NOW).await.unwrap(), []);
    assert_eq!(db.waiting(Class::Interactive, NOW + 1).await.unwrap(), []);
    for returns in [2, 2, 4, 400] {
        db.touch_jobs(&[(silent, 1)], &WorkerId("gone".to_owned()), returns, NOW).await.unwrap();
    }
    assert_eq!(job(db, silent).await.taken, 1 | 1 << 2 | 1 << 4 | 1 << 15, "each delivery once");
    assert!(!db.lose_lease(silent, 1, NOW - 1, NOW).await.unwrap(), "it has spoken since");
    assert!(!db.lose_lease(silent, 2, NOW, NOW).await.unwrap(), "of another publication");
    assert!(db.lose_lease(silent, 1, NOW, NOW).await.unwrap());
    assert!(!db.lose_lease(silent, 1, NOW, NOW).await.unwrap(), "once");
    assert_eq!((job(db, silent).await.lost_leases, job(db, silent).await.infra_failures), (1, 0));
    db.settle_job(silent, &Settlement::Cancelled, NOW).await.unwrap();
    db.finish_sweep(sweep, &SweepState::Interrupted, NOW, None).await.unwrap();
    assert_eq!(db.overdue(i64::MAX, lease).await.unwrap(), []);
    assert_eq!(db.count_queued(Class::Bulk).await.unwrap(), 0);
}

/// Failures of infrastructure are counted, lost leases are not; publications are counted always.
pub async fn requeued_job_counts_its_failures(db: &Db) {
    let sweep = running_sweep(db).await;
    let id = queued_job(db, sweep, "unlucky").await;
    db.requeue_job(id, NOW + SECOND, Some(AWKWARD.to_owned())).await.unwrap();
    db.requeue_job(id, NOW + 9 * SECOND, Some("not queued: not counted".to_owned())).await.unwrap();
    let row = job(db, id).await;
    assert_eq!(row.state, JobState::Pending { available_at: NOW + SECOND });
    assert_eq!((row.infra_failures, row.publications, row.last_error.as_deref()), (1, 1, Some(AWKWARD)));
    db.mark_queued(&[(id, 1)], NOW).await.unwrap();
    assert!(
        matches!(job(db, id).await.state, JobState::Pending { .. }),
        "late word of an earlier publication"
    );
    db.mark_queued(&[(id, 2)], NOW + SECOND).await.unwrap();
    db.touch_jobs(&[(id, 2)], &WorkerId("w".to_owned()), 0, NOW + SECOND).await.unwrap();
    db.requeue_job(id, NOW, None).await.unwrap();
    db.mark_queued(&[(id, 3)], NOW + 2 * SECOND).await.unwrap();
    let row = job(db, id).await;
    assert_eq!((row.infra_failures, row.publications, row.taken), (1, 3, 0));
    let since = NOW + 2 * SECOND;
    assert_eq!(row.state, JobState::Queued { publication: 3, since, worker: None, last_news: since });
}

/// Of two callers one begins a publication; a crash in the middle costs its number and a while, and a
/// publication that could not be sent is begun again at once.
pub async fn publication_is_begun_by_one(db: &Db) {
    let sweep = running_sweep(db).await;
    let (one, other) = (pending_job(db, sweep, "one").await, pending_job(db, sweep, "other").await);
    let begin = async |jobs: &[(JobId, u32)], now| {
        let mut begun = db.begin_publications(jobs, now).await.unwrap();
        begun.sort();
        begun
    };
    let both = {
        let mut both = vec![one, other];
        both.sort();
        both
    };
    assert_eq!(begin(&[(one, 1), (other, 1), (JobId::new(), 1)], NOW).await, both);
    assert_eq!(begin(&[(one, 1), (other, 1)], NOW).await, []);
    assert_eq!(begin(&[(one, 2), (other, 2)], NOW + SECOND).await, [], "another has just begun them");
    assert_eq!((job(db, one).await.begun, job(db, one).await.publications), (1, 0));
    db.abandon_publications(&[other]).await.unwrap();
    assert_eq!(begin(&[(other, 2)], NOW + SECOND).await, [other]);
    assert_eq!(begin(&[(one, 2)], NOW + 11 * SECOND).await, [one], "who began it is gone");
    db.mark_queued(&[(one, 2)], NOW + 12 * SECOND).await.unwrap();
    assert_eq!(job(db, one).await.publications, 2);
    assert_eq!(begin(&[(one, 3)], NOW + 60 * SECOND).await, [], "it is queued");
    db.requeue_job(one, NOW, None).await.unwrap();
    assert_eq!(begin(&[(one, 3)], NOW + 12 * SECOND).await, [one]);
}

/// What was made of a job that is handed back goes with its next publication, and counts if there is
/// none; late word of an earlier publication takes nothing back.
pub async fn handed_back_job_keeps_what_was_made(db: &Db) {
    let sweep = running_sweep(db).await;
    let id = queued_job(db, sweep, "long").await;
    let other = queued_job(db, sweep, "untouched").await;
    let made = Payload::Inline(b"half of it".to_vec());
    assert!(!db.take_back(id, 7, Some(&made), None, NOW).await.unwrap());
    assert!(db.take_back(id, 1, Some(&made), None, NOW + SECOND).await.unwrap());
    let row = job(db, id).await;
    assert_eq!(row.state, JobState::Pending { available_at: NOW + SECOND });
    assert_eq!((row.made, row.infra_failures), (Some(made.clone()), 0));
    db.mark_queued(&[(id, 2)], NOW).await.unwrap();
    assert!(!db.take_back(id, 1, None, Some("late"), NOW).await.unwrap());
    assert!(db.take_back(id, 2, None, Some("engine"), NOW).await.unwrap());
    let row = job(db, id).await;
    assert_eq!(
        (row.made, row.infra_failures, row.last_error.as_deref()),
        (Some(made.clone()), 1, Some("engine"))
    );
    assert_eq!(db.cancel_jobs(sweep, NOW).await.unwrap(), 2);
    let settled = |settlement| JobState::Settled { settlement, at: NOW };
    assert_eq!(job(db, id).await.state, settled(Settlement::Done { report: made }));
    assert_eq!(job(db, other).await.state, settled(Settlement::Cancelled));
}

/// What cannot be read is kept as it came, until somebody has it published again or discards it.
pub async fn parked_message_keeps_its_body(db: &Db) {
    let row = ParkedRow {
        id: uuid::Uuid::now_v7(),
        came_at: NOW,
        origin: Some("bulk".to_owned()),
        reason: AWKWARD.to_owned(),
        body: vec![0, 159, 146, 150, b'{'],
    };
    let later = ParkedRow { id: uuid::Uuid::now_v7(), came_at: NOW + 1, origin: None, ..row.clone() };
    for row in [&row, &later, &row] {
        db.park(row).await.unwrap();
    }
    assert_eq!(db.parked(10).await.unwrap(), [later.clone(), row.clone()]);
    assert_eq!(db.parked(1).await.unwrap(), std::slice::from_ref(&later));
    assert_eq!(db.parked_message(row.id).await.unwrap(), row);
    db.discard_parked(row.id).await.unwrap();
    assert!(matches!(db.discard_parked(row.id).await, Err(DbError::NotFound(_))));
    assert!(matches!(db.parked_message(row.id).await, Err(DbError::NotFound(_))));
    assert_eq!(db.parked(10).await.unwrap(), [later]);
}

/// Of twenty callers one settles a job, and its settlement stays whatever comes later.
pub async fn first_settlement_wins(db: &Db) {
    let sweep = running_sweep(db).await;
    for round in 0..5 {
        let id = queued_job(db, sweep, &format!("contested {round}")).await;
        let calls = (0..20).map(|n| {
            let db = db.clone();
            tokio::spawn(async move {
                let settlement = Settlement::Dead { reason: n.to_string() };
                (n, db.settle_job(id, &settlement, NOW + n).await.unwrap())
            })
        });
        let answers: Vec<_> =
            futures::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
        let first: Vec<_> = answers.iter().filter(|(_, answer)| *answer == Settled::First).collect();
        assert_eq!(first.len(), 1, "{answers:?}");
        assert!(answers.iter().all(|(_, answer)| *answer != Settled::Unknown), "{answers:?}");
        let n = first[0].0;
        let expect =
            JobState::Settled { settlement: Settlement::Dead { reason: n.to_string() }, at: NOW + n };
        db.mark_queued(&[(id, 9)], NOW).await.unwrap();
        db.requeue_job(id, NOW, Some("late".to_owned())).await.unwrap();
        db.touch_jobs(&[(id, 9)], &WorkerId("late".to_owned()), 0, NOW).await.unwrap();
        db.cancel_jobs(sweep, NOW).await.unwrap();
        let row = job(db, id).await;
        assert_eq!((row.state, row.infra_failures, row.publications), (expect, 0, 1));
    }
    let unknown = db.settle_job(JobId::new(), &Settlement::Cancelled, NOW).await.unwrap();
    assert_eq!(unknown, Settled::Unknown);
    assert_eq!(db.job(JobId::new()).await.unwrap(), None);
}

/// Every settlement is read back, and a pending job may be settled too.
pub async fn settlements_come_back_as_they_were(db: &Db) {
    let sweep = running_sweep(db).await;
    for (n, settlement) in settlements().into_iter().enumerate() {
        let id = pending_job(db, sweep, &n.to_string()).await;
        assert_eq!(db.settle_job(id, &settlement, NOW).await.unwrap(), Settled::First);
        assert_eq!(job(db, id).await.state, JobState::Settled { settlement, at: NOW });
    }
}

/// Cancelling ends what is open and leaves what has ended, and other sweeps, alone.
pub async fn cancelling_leaves_settled_jobs_alone(db: &Db) {
    let (sweep, other) = (running_sweep(db).await, running_sweep(db).await);
    let elsewhere = queued_job(db, other, "elsewhere").await;
    let queued = queued_job(db, sweep, "queued").await;
    let pending = pending_job(db, sweep, "pending").await;
    for (n, settlement) in settlements().into_iter().enumerate() {
        let id = queued_job(db, sweep, &n.to_string()).await;
        db.settle_job(id, &settlement, NOW).await.unwrap();
    }
    assert_eq!(db.cancel_jobs(sweep, NOW + 5).await.unwrap(), 2);
    assert_eq!(db.cancel_jobs(sweep, NOW + 6).await.unwrap(), 0);
    let cancelled = JobState::Settled { settlement: Settlement::Cancelled, at: NOW + 5 };
    assert_eq!(job(db, queued).await.state, cancelled);
    assert_eq!(job(db, pending).await.state, cancelled);
    for (n, settlement) in settlements().into_iter().enumerate() {
        let id = JobId::derive(sweep, &n.to_string());
        assert_eq!(job(db, id).await.state, JobState::Settled { settlement, at: NOW });
    }
    assert!(matches!(job(db, elsewhere).await.state, JobState::Queued { .. }));
}

/// An operator revives a dead job or takes it off the list.
pub async fn dead_jobs_are_revived_or_discarded(db: &Db) {
    let sweep = running_sweep(db).await;
    let mut dead = Vec::new();
    for n in 0..3 {
        let id = queued_job(db, sweep, &format!("dead {n}")).await;
        db.settle_job(id, &Settlement::Dead { reason: "poison".to_owned() }, NOW + n).await.unwrap();
        dead.push(id);
    }
    let fine = queued_job(db, sweep, "fine").await;
    db.settle_job(fine, &Settlement::Cancelled, NOW).await.unwrap();
    assert_eq!(keys(&db.dead_jobs(10).await.unwrap()), ["dead 2", "dead 1", "dead 0"]);
    assert_eq!(keys(&db.dead_jobs(1).await.unwrap()), ["dead 2"]);
    db.revive_job(dead[0], NOW + SECOND).await.unwrap();
    let row = job(db, dead[0]).await;
    assert_eq!((row.state, row.publications), (JobState::Pending { available_at: NOW + SECOND }, 1));
    db.discard_job(dead[1], NOW).await.unwrap();
    db.discard_job(dead[1], NOW + 1).await.unwrap();
    assert_eq!(keys(&db.dead_jobs(10).await.unwrap()), ["dead 2"]);
    assert!(matches!(db.revive_job(dead[1], NOW).await, Err(DbError::Conflict(_))));
    assert!(matches!(db.revive_job(fine, NOW).await, Err(DbError::Conflict(_))));
    assert!(matches!(db.discard_job(fine, NOW).await, Err(DbError::Conflict(_))));
    assert!(matches!(db.revive_job(JobId::new(), NOW).await, Err(DbError::NotFound(_))));
    assert!(matches!(db.discard_job(JobId::new(), NOW).await, Err(DbError::NotFound(_))));
    db.finish_sweep(sweep, &SweepState::Answered, NOW, None).await.unwrap();
    assert!(matches!(db.revive_job(dead[2], NOW).await, Err(DbError::Conflict(_))));
}
