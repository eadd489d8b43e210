//! The laws of the coordinator's store, to be run on SQLite and on PostgreSQL.
#![expect(clippy::unwrap_used, reason = "in a test, a failed step is the failure")]

mod entities;
mod farm;
mod jobs;
mod links;
mod repairs;

pub use entities::*;
pub use farm::*;
pub use jobs::*;
pub use links::*;
pub use repairs::*;

use flakefarm_coordinator::db::{
    Db, DbError, JobRow, JobState, NewJob, NewSweep, Settled, Settlement, SweepState, TokenRow, VerdictRow,
    WorkerRow,
};
use flakefarm_shared::{Class, Digest, JobId, Payload, Refusal, SweepId, TestId, WorkerId};
use std::time::{Duration, Instant};

const NOW: i64 = 1_790_000_000_000_000;
const SECOND: i64 = 1_000_000;
/// Text that meets quoting, other scripts, combining marks and four-byte characters.
const AWKWARD: &str = "tests/ü_测试.py::Тест[naïve 'quoted\" \\back\n🦀\u{301}]; DROP TABLE jobs; --";

fn new_sweep(project: &str) -> NewSweep {
    NewSweep {
        id: SweepId::new(),
        project: project.to_owned(),
        revision: Some("3f2c1d".to_owned()),
        question: r#"{"kind":"detect"}"#.to_owned(),
        context: Digest::of(b"context"),
        class: Class::Bulk,
        seed: 7,
        source: format!("/src/{project}"),
        created_at: NOW,
    }
}

async fn running_sweep(db: &Db) -> SweepId {
    let sweep = new_sweep("project");
    db.create_sweep(&sweep).await.unwrap();
    sweep.id
}

fn new_job(sweep: SweepId, key: &str, class: Class) -> NewJob {
    let spec = Payload::Inline(key.as_bytes().to_vec());
    NewJob { id: JobId::derive(sweep, key), key: key.to_owned(), class, spec, attempts: 20 }
}

async fn pending_job(db: &Db, sweep: SweepId, key: &str) -> JobId {
    let job = new_job(sweep, key, Class::Bulk);
    db.insert_jobs(sweep, std::slice::from_ref(&job), NOW).await.unwrap();
    job.id
}

async fn queued_job(db: &Db, sweep: SweepId, key: &str) -> JobId {
    let job = pending_job(db, sweep, key).await;
    db.mark_queued(&[(job, 1)], NOW).await.unwrap();
    job
}

async fn job(db: &Db, job: JobId) -> JobRow {
    db.job(job).await.unwrap().expect("the job was recorded")
}

fn keys(jobs: &[JobRow]) -> Vec<&str> {
    jobs.iter().map(|job| job.key.as_str()).collect()
}

fn refusal() -> Refusal {
    Refusal {
        message: AWKWARD.to_owned(),
        log: "line\0with NUL\n".to_owned(),
        hint: Some("mend it".to_owned()),
    }
}

fn settlements() -> [Settlement; 4] {
    [
        Settlement::Done { report: Payload::Inline(b"report".to_vec()) },
        Settlement::Refused(refusal()),
        Settlement::Dead { reason: AWKWARD.to_owned() },
        Settlement::Cancelled,
    ]
}

fn verdict(project: &str, test: &str, failures: u32) -> VerdictRow {
    VerdictRow {
        project: project.to_owned(),
        test: TestId::from(test),
        verdict: "flaky".to_owned(),
        attempts: u32::MAX,
        failures,
        estimate: 1.0 / 3.0,
        lower: f64::MIN_POSITIVE,
        upper: 0.1 + 0.2,
        score: 0.0,
        p50_ms: 12_345.678_9,
        finished_at: NOW,
        fingerprint: Some(Digest::of(b"touched")),
    }
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn text(&mut self) -> String {
        let letters: Vec<char> = AWKWARD.chars().chain("\t\u{7f}\u{ffff}%_`${}".chars()).collect();
        let length = self.roll() as usize % 60;
        (0..length).map(|_| letters[self.roll() as usize % letters.len()]).collect()
    }
}

/// What was recorded is read back, whatever it is.
pub async fn sweeps_come_back_as_they_were(db: &Db) {
    let mut dice = Dice(20_260_901);
    let states = [
        SweepState::Running,
        SweepState::Answered,
        SweepState::Interrupted,
        SweepState::Cancelled,
        SweepState::Failed(refusal()),
    ];
    for round in 0..60 {
        let sweep = NewSweep {
            id: SweepId::new(),
            project: dice.text(),
            revision: (round % 2 == 0).then(|| dice.text()),
            question: dice.text(),
            context: Digest::of(&dice.roll().to_be_bytes()),
            class: Class::ALL[round % 2],
            seed: [0, u64::MAX, 1 << 63, dice.roll()][round % 4],
            source: dice.text(),
            created_at: [0, -1, i64::MAX, NOW][round % 4],
        };
        db.create_sweep(&sweep).await.unwrap();
        let state = &states[round % states.len()];
        let listing = (round % 3 == 0).then(|| Digest::of(b"listing"));
        let report = (round % 3 == 1 && *state != SweepState::Running).then(|| Digest::of(b"report"));
        if let Some(listing) = &listing {
            db.set_listing(sweep.id, listing).await.unwrap();
        }
        if *state != SweepState::Running {
            assert_eq!(db.finish_sweep(sweep.id, state, NOW, report.as_ref()).await.unwrap(), Settled::First);
        }
        let row = db.sweep(sweep.id).await.unwrap().unwrap();
        assert_eq!(row.state, *state);
        assert_eq!((row.listing, row.report), (listing, report));
        assert_eq!(row.finished_at, (*state != SweepState::Running).then_some(NOW));
        let read = NewSweep {
            id: row.id,
            project: row.project,
            revision: row.revision,
            question: row.question,
            context: row.context,
            class: row.class,
            seed: row.seed,
            source: row.source,
            created_at: row.created_at,
        };
        assert_eq!(read, sweep);
    }
}

/// The newest sweep of a project, the running ones, and the one to be resumed are found.
pub async fn sweeps_are_found_by_project_state_and_source(db: &Db) {
    let mut ids = Vec::new();
    for (age, project) in ["a", "b", "a", AWKWARD].into_iter().enumerate() {
        let sweep = NewSweep { created_at: NOW + age as i64, ..new_sweep(project) };
        db.create_sweep(&sweep).await.unwrap();
        ids.push(sweep.id);
    }
    assert!(matches!(
        db.create_sweep(&NewSweep { id: ids[0], ..new_sweep("again") }).await,
        Err(DbError::Conflict(_))
    ));
    assert_eq!(db.latest_sweep("a").await.unwrap().unwrap().id, ids[2]);
    assert_eq!(db.latest_sweep(AWKWARD).await.unwrap().unwrap().id, ids[3]);
    assert_eq!(db.latest_sweep("none").await.unwrap(), None);
    let newest: Vec<_> = db.sweeps(3).await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(newest, [ids[3], ids[2], ids[1]]);
    db.finish_sweep(ids[0], &SweepState::Interrupted, NOW, None).await.unwrap();
    db.finish_sweep(ids[1], &SweepState::Interrupted, NOW, None).await.unwrap();
    db.finish_sweep(ids[2], &SweepState::Answered, NOW, None).await.unwrap();
    let running: Vec<_> = db.unfinished_sweeps().await.unwrap().into_iter().map(|row| row.id).collect();
    assert_eq!(running, [ids[3]]);
    assert_eq!(db.last_interrupted("/src/a").await.unwrap().unwrap().id, ids[0]);
    assert_eq!(db.last_interrupted("/src/none").await.unwrap(), None);
}

/// A sweep ends once; only an interrupted one goes on.
pub async fn sweep_ends_once_and_only_an_interrupted_one_resumes(db: &Db) {
    let sweep = running_sweep(db).await;
    assert!(matches!(db.resume_sweep(sweep).await, Err(DbError::Conflict(_))));
    assert!(matches!(
        db.finish_sweep(sweep, &SweepState::Running, NOW, None).await,
        Err(DbError::Conflict(_))
    ));
    db.finish_sweep(sweep, &SweepState::Interrupted, NOW, None).await.unwrap();
    db.resume_sweep(sweep).await.unwrap();
    let row = db.sweep(sweep).await.unwrap().unwrap();
    assert_eq!((row.state, row.finished_at), (SweepState::Running, None));
    assert!(matches!(db.resume_sweep(sweep).await, Err(DbError::Conflict(_))), "the second caller is told");
    let report = Digest::of(b"first");
    let first = db.finish_sweep(sweep, &SweepState::Answered, NOW, Some(&report)).await.unwrap();
    let second = db.finish_sweep(sweep, &SweepState::Cancelled, NOW + 1, None).await.unwrap();
    assert_eq!((first, second), (Settled::First, Settled::Already));
    let row = db.sweep(sweep).await.unwrap().unwrap();
    assert_eq!((row.state, row.finished_at, row.report), (SweepState::Answered, Some(NOW), Some(report)));
    let failed = SweepState::Failed(refusal());
    let reason = refusal();
    assert!(!db.fail_cancelled(sweep, &reason).await.unwrap(), "it was answered");
    let cancelled = running_sweep(db).await;
    assert!(!db.fail_cancelled(cancelled, &reason).await.unwrap(), "it runs");
    db.finish_sweep(cancelled, &SweepState::Cancelled, NOW, None).await.unwrap();
    assert!(db.sweeps_to_advance().await.unwrap().contains(&cancelled), "its report is owed");
    assert!(db.fail_cancelled(cancelled, &reason).await.unwrap());
    assert!(!db.fail_cancelled(cancelled, &reason).await.unwrap(), "only once");
    assert!(!db.sweeps_to_advance().await.unwrap().contains(&cancelled), "nothing is owed");
    let row = db.sweep(cancelled).await.unwrap().unwrap();
    assert_eq!((row.state, row.finished_at), (failed, Some(NOW)));
    let unknown = SweepId::new();
    assert_eq!(db.finish_sweep(unknown, &SweepState::Answered, NOW, None).await.unwrap(), Settled::Unknown);
    assert!(matches!(db.resume_sweep(unknown).await, Err(DbError::NotFound(_))));
    assert!(matches!(db.set_listing(unknown, &Digest::of(b"")).await, Err(DbError::NotFound(_))));
}

/// Recording again replaces; a test's history is by project, newest first, and exact.
pub async fn verdicts_are_replaced_and_remembered(db: &Db) {
    let (old, new) = (running_sweep(db).await, running_sweep(db).await);
    let long = "x".repeat(20_000);
    let rows: Vec<_> = [AWKWARD, "b", "a", &long].iter().map(|test| verdict("p", test, 1)).collect();
    db.record_verdicts(old, &rows).await.unwrap();
    db.record_verdicts(old, &rows).await.unwrap();
    let twice = [verdict("p", "b", 2), verdict("p", "b", 3)];
    db.record_verdicts(old, &twice).await.unwrap();
    db.record_verdicts(old, &[]).await.unwrap();
    let found = db.verdicts(old).await.unwrap();
    let tests: Vec<_> = found.iter().map(|row| row.test.as_str()).collect();
    assert_eq!(tests, ["a", "b", AWKWARD, &long]);
    assert_eq!(found[0], verdict("p", "a", 1));
    assert_eq!(found[1], verdict("p", "b", 3), "the later one counts");
    let later = VerdictRow { finished_at: NOW + 1, verdict: "healthy".to_owned(), ..verdict("p", "b", 0) };
    db.record_verdicts(new, &[later.clone(), verdict("other", "b", 9)]).await.unwrap();
    let history = db.test_history("p", &TestId::from("b"), 10).await.unwrap();
    assert_eq!(history.iter().map(|row| row.sweep).collect::<Vec<_>>(), [new, old]);
    assert_eq!(history[0].verdict, later);
    assert_eq!(history[0].revision.as_deref(), Some("3f2c1d"));
    assert_eq!(db.test_history("p", &TestId::from("b"), 1).await.unwrap().len(), 1);
    assert_eq!(db.test_history("p", &TestId::from(long.as_str()), 10).await.unwrap().len(), 1);
    assert_eq!(db.test_history("p", &TestId::from("B"), 10).await.unwrap(), []);
    let stray = db.record_verdicts(SweepId::new(), &rows).await;
    assert!(matches!(stray, Err(DbError::NotFound(_))), "{stray:?}");
}

/// A big project's sweep is recorded in seconds.
pub async fn a_hundred_thousand_verdicts_take_seconds(db: &Db) {
    let sweep = running_sweep(db).await;
    let rows: Vec<_> = (0..100_000).map(|n| verdict("p", &format!("tests/test_{n}.py::test"), n)).collect();
    let started = Instant::now();
    db.record_verdicts(sweep, &rows).await.unwrap();
    let took = started.elapsed();
    assert!(took < Duration::from_secs(60), "100,000 verdicts took {took:?}");
    eprintln!("100,000 verdicts took {took:?}");
    assert_eq!(db.verdicts(sweep).await.unwrap().len(), 100_000);
}

/// Workers are as they last described themselves.
pub async fn workers_are_as_last_heard(db: &Db) {
    let first = WorkerRow {
        id: WorkerId(AWKWARD.to_owned()),
        version: "0.1.0".to_owned(),
        slots: u16::MAX,
        seen_at: NOW,
        draining: true,
        jobs: u32::MAX,
        trouble: Some(AWKWARD.to_owned()),
    };
    let other = WorkerRow { id: WorkerId("B".to_owned()), draining: false, ..first.clone() };
    db.upsert_worker(&first).await.unwrap();
    db.upsert_worker(&other).await.unwrap();
    assert_eq!(db.workers().await.unwrap(), [other.clone(), first.clone()]);
    let later = WorkerRow { seen_at: NOW + SECOND, slots: 1, draining: false, jobs: 0, ..first.clone() };
    db.upsert_worker(&later).await.unwrap();
    db.upsert_worker(&first).await.unwrap();
    assert_eq!(db.workers().await.unwrap(), [other, later.clone()], "an older word changes nothing");
    assert_eq!(db.forget_workers(NOW + SECOND).await.unwrap(), 1);
    assert_eq!(db.workers().await.unwrap(), [later]);
}

/// A token is recorded once, used, and revoked once.
pub async fn tokens_are_used_and_revoked(db: &Db) {
    let token = TokenRow {
        id: "k3y".to_owned(),
        kind: "submit".to_owned(),
        hash: Digest::of(b"secret").to_string(),
        label: AWKWARD.to_owned(),
        created_at: NOW,
        expires_at: Some(NOW + SECOND),
        revoked_at: None,
        last_used: None,
        scopes: Some(vec!["read".to_owned(), "ingest".to_owned()]),
        projects: Some(vec![AWKWARD.to_owned()]),
    };
    db.insert_token(&token).await.unwrap();
    assert!(matches!(db.insert_token(&token).await, Err(DbError::Conflict(_))));
    assert_eq!(db.token("k3y").await.unwrap(), Some(token.clone()));
    assert_eq!(db.token("' OR 1=1 --").await.unwrap(), None);
    db.touch_token("k3y", NOW + 2).await.unwrap();
    db.touch_token("k3y", NOW + 1).await.unwrap();
    db.touch_token("unknown", NOW).await.unwrap();
    db.revoke_token("k3y", NOW + 3).await.unwrap();
    db.revoke_token("k3y", NOW + 4).await.unwrap();
    let expect = TokenRow { last_used: Some(NOW + 2), revoked_at: Some(NOW + 3), ..token };
    assert_eq!(db.tokens().await.unwrap(), [expect]);
    assert!(matches!(db.revoke_token("unknown", NOW).await, Err(DbError::NotFound(_))));
}

/// The NUL character, which one database cannot hold, is replaced in both.
pub async fn nul_in_text_is_replaced(db: &Db) {
    let sweep = NewSweep { project: "a\0b".to_owned(), ..new_sweep("nul") };
    db.create_sweep(&sweep).await.unwrap();
    assert_eq!(db.latest_sweep("a\0b").await.unwrap().unwrap().project, "a\u{fffd}b");
    let id = queued_job(db, sweep.id, "k\0y").await;
    db.requeue_job(id, NOW, Some("\0".to_owned())).await.unwrap();
    db.record_verdicts(sweep.id, &[verdict("p\0", "t\0", 1)]).await.unwrap();
    let history = db.test_history("p\0", &TestId::from("t\0"), 1).await.unwrap();
    assert_eq!(history[0].verdict.test.as_str(), "t\u{fffd}");
}

/// Eight writers of two openings of the same database, a hundred transactions each: none is turned
/// away, none waits for another for ever, nothing is lost.
pub async fn concurrent_writers_all_succeed(url: &str) {
    let handles = [Db::open(url).await.unwrap(), Db::open(url).await.unwrap()];
    let sweep = running_sweep(&handles[0]).await;
    let shared: Vec<_> = (0..10).map(|n| new_job(sweep, &format!("shared {n}"), Class::Bulk)).collect();
    let writers = (0..8).map(|writer| {
        let db = handles[writer % 2].clone();
        let shared = shared.clone();
        tokio::spawn(async move {
            let name = WorkerId(format!("worker {writer}"));
            for round in 0..20 {
                let mut jobs = shared.clone();
                jobs.push(new_job(sweep, &format!("{writer} {round}"), Class::Bulk));
                jobs.rotate_left(writer);
                db.insert_jobs(sweep, &jobs, NOW).await.unwrap();
                let mut ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
                for id in &ids {
                    db.mark_queued(&[(*id, round + 1)], NOW).await.unwrap();
                }
                ids.reverse();
                let in_hand: Vec<_> = ids.iter().map(|id| (*id, round + 1)).collect();
                db.touch_jobs(&in_hand, &name, 0, NOW + i64::from(round)).await.unwrap();
                let rows: Vec<_> = (0..10).map(|n| verdict("p", &n.to_string(), round)).collect();
                db.record_verdicts(sweep, &rows).await.unwrap();
                if round % 5 == 4 {
                    db.cancel_jobs(sweep, NOW).await.unwrap();
                }
            }
        })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap();
    }
    assert_eq!(handles[1].jobs(sweep).await.unwrap().len(), 8 * 20 + 10);
    for db in handles {
        db.close().await;
    }
}

/// What was recorded is there after closing and opening again, and after a clone was only dropped.
pub async fn data_survive_reopening(url: &str) {
    let db = Db::open(url).await.unwrap();
    let sweep = running_sweep(&db).await;
    let id = queued_job(&db, sweep, "kept").await;
    db.close().await;
    assert!(matches!(db.ping().await, Err(DbError::Unreachable(_))));
    let db = Db::open(url).await.unwrap();
    assert!(matches!(job(&db, id).await.state, JobState::Queued { .. }));
    db.settle_job(id, &Settlement::Cancelled, NOW).await.unwrap();
    drop(db);
    let db = Db::open(url).await.unwrap();
    assert!(matches!(job(&db, id).await.state, JobState::Settled { .. }));
    db.ping().await.unwrap();
    db.close().await;
}

/// Several processes may open a new database at once; one of them makes the schema.
pub async fn new_database_may_be_opened_by_several_at_once(url: &str) {
    let openings = (0..6).map(|_| {
        let url = url.to_owned();
        tokio::spawn(async move { Db::open(&url).await })
    });
    for opened in futures::future::join_all(openings).await {
        let db = opened.unwrap().unwrap();
        assert_eq!(db.sweeps(1).await.unwrap(), []);
        db.close().await;
    }
}
