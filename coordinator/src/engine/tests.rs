//! Coordinators over a file and a queue of this process, without workers: jobs end as the test says.

use super::*;
use crate::control::CONTROL;
use crate::db::{EventRow, JobState, NewSweep, Settlement, SweepState};
use crate::experiment::JobKey;
use crate::plan::{Question, Runs};
use crate::repairs::{RepairEnd, RepairRequest, RepairState};
use flakefarm_shared::queue::Role;
use flakefarm_shared::{
    Class, Digest, JobReport, Listing, Payload, ProjectSpec, SweepContext, TestId, WIRE_VERSION, World,
    now_micros,
};

use std::num::NonZeroU32;

struct Farm {
    directory: tempfile::TempDir,
    db: Db,
    blobs: Blobs,
    stop: CancellationToken,
}

impl Farm {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite:{}", directory.path().join("farm.db").display())).await.unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().join("blobs").display())).unwrap();
        Self { directory, db, blobs, stop: CancellationToken::new() }
    }

    /// Another coordinator of the farm; it runs until the test ends.
    fn coordinator(&self) -> Coordinator {
        self.coordinator_until(self.stop.child_token())
    }

    fn coordinator_until(&self, stop: CancellationToken) -> Coordinator {
        let queue = Queue::open("embedded:", Role::Coordinator).unwrap();
        let coordinator = Coordinator::new(self.db.clone(), queue, self.blobs.clone(), DEFAULT_LEASE);
        let running = coordinator.clone();
        tokio::spawn(async move { running.run(stop).await });
        coordinator
    }

    async fn submission(&self, question: Question) -> Submission {
        let snapshot = self.blobs.put("a snapshot").await.unwrap();
        let project = ProjectSpec {
            limits: serde_json::from_value(serde_json::json!({
                "test_timeout_ms": 1, "attempt_timeout_ms": 1, "memory_bytes": 1, "cpu_millis": 1, "pids": 1,
                "scratch_bytes": 1, "network": "none",
            }))
            .unwrap(),
            ..ProjectSpec::of_image("p", flakefarm_shared::project::Framework::Pytest, "none")
        };
        let context = SweepContext {
            v: WIRE_VERSION,
            project,
            snapshot,
            revision: None,
            under: World::Plain,
            typed: flakefarm_shared::Typed::default(),
        };
        Submission { context, question, class: Class::Bulk, source: "here".to_owned() }
    }

    /// The state of a sweep, once it has ended.
    async fn ended(&self, sweep: SweepId) -> SweepState {
        let ended = async |_: &Self| match self.db.sweep(sweep).await.unwrap().unwrap().state {
            SweepState::Running => None,
            state => Some(state),
        };
        self.until("the sweep has ended", ended).await
    }

    /// Waits for something that comes; a minute is much longer than it takes.
    async fn until<T>(&self, what: &str, mut see: impl AsyncFnMut(&Self) -> Option<T>) -> T {
        let began = std::time::Instant::now();
        loop {
            if let Some(seen) = see(self).await {
                return seen;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Ends the listing of a sweep as a worker would.
    async fn end_listing(&self, sweep: SweepId, end: Settlement) {
        let job = JobKey::LIST.id(sweep);
        self.until("the listing is planned", async |farm| farm.db.job(job).await.unwrap()).await;
        self.db.settle_job(job, &end, now_micros()).await.unwrap();
    }

    async fn listed(&self, sweep: SweepId, tests: &[&str]) -> Settlement {
        let listing: Listing = serde_json::from_value(serde_json::json!({
            "tests": tests, "collection_errors": [], "framework_version": "f", "image": "i", "command": "c",
        }))
        .unwrap();
        let job = JobKey::LIST.id(sweep);
        let report = JobReport { v: WIRE_VERSION, job, listing: Some(listing), attempts: Vec::new() };
        Settlement::Done { report: self.blobs.pack(&report).await.unwrap() }
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn one_run() -> Question {
    Question { runs: Runs::Fixed(NonZeroU32::MIN), ..Question::detect(1) }
}

/// A sweep whose question another version of this program recorded.
fn unreadable(context: Digest) -> NewSweep {
    NewSweep {
        id: SweepId::new(),
        project: "p".to_owned(),
        revision: None,
        question: "{\"of\": \"another version\"}".to_owned(),
        context,
        class: Class::Bulk,
        seed: 1,
        source: String::new(),
        created_at: now_micros(),
    }
}

fn why(state: &SweepState) -> String {
    state.refusal().map_or_else(|| state.word().to_owned(), |refusal| refusal.message.clone())
}

#[tokio::test]
async fn a_sweep_that_cannot_be_planned_fails_alone_with_its_reason() {
    let farm = Farm::open().await;
    let coordinator = farm.coordinator();
    let submission = farm.submission(one_run()).await;
    let context = farm.blobs.put_json(&submission.context).await.unwrap();
    let unreadable = unreadable(context);
    farm.db.create_sweep(&unreadable).await.unwrap();
    let sound = coordinator.submit(&submission).await.unwrap();
    let state = farm.ended(unreadable.id).await;
    assert_eq!(why(&state), "the question of this sweep cannot be read");
    farm.end_listing(sound, farm.listed(sound, &["a::b"]).await).await;
    let planned = async |farm: &Farm| (farm.db.jobs(sound).await.unwrap().len() > 1).then_some(());
    farm.until("the other sweep goes on", planned).await;
    assert!(matches!(coordinator.report(unreadable.id).await, Err(EngineError::Unusable(_))));
}

#[tokio::test]
async fn a_listing_that_is_none_fails_its_sweep_and_nothing_else() {
    let farm = Farm::open().await;
    let coordinator = farm.coordinator();
    let report = |job| JobReport { v: WIRE_VERSION, job, listing: None, attempts: Vec::new() };
    let absent = Payload::Blob(Digest::of(b"nobody stored this"));
    let nonsense = Payload::Blob(farm.blobs.put("no report").await.unwrap());
    let submission = farm.submission(one_run()).await;
    for (payload, wanted) in [
        (None, "the worker reported no listing of the tests"),
        (Some(absent), "what this sweep has recorded is missing or damaged"),
        (Some(nonsense), "what this sweep has recorded is missing or damaged"),
    ] {
        let sweep = coordinator.submit(&submission).await.unwrap();
        let payload = match payload {
            Some(payload) => payload,
            None => farm.blobs.pack(&report(JobKey::LIST.id(sweep))).await.unwrap(),
        };
        farm.end_listing(sweep, Settlement::Done { report: payload }).await;
        assert_eq!(why(&farm.ended(sweep).await), wanted);
    }
    let sweep = coordinator.submit(&submission).await.unwrap();
    farm.end_listing(sweep, farm.listed(sweep, &["a::b"]).await).await;
    let planned = async |farm: &Farm| (farm.db.jobs(sweep).await.unwrap().len() > 1).then_some(());
    farm.until("the next sweep goes on", planned).await;
}

#[tokio::test]
async fn a_report_that_is_lost_is_missing_data_and_the_sweep_can_be_cancelled() {
    let farm = Farm::open().await;
    let coordinator = farm.coordinator();
    let sweep = coordinator.submit(&farm.submission(one_run()).await).await.unwrap();
    farm.end_listing(sweep, farm.listed(sweep, &["a::b"]).await).await;
    let first = async |farm: &Farm| {
        let jobs = farm.db.jobs(sweep).await.unwrap();
        jobs.into_iter()
            .find(|job| job.key != JobKey::LIST.to_string() && !matches!(job.state, JobState::Settled { .. }))
    };
    let job = farm.until("a run is planned", first).await;
    let lost = Settlement::Done { report: Payload::Blob(Digest::of(b"nobody stored this either")) };
    farm.db.settle_job(job.id, &lost, now_micros()).await.unwrap();
    coordinator.wake.notify_one();
    let next = async |farm: &Farm| {
        let jobs = farm.db.jobs(sweep).await.unwrap();
        jobs.into_iter().find(|other| other.key != JobKey::LIST.to_string() && other.id != job.id)
    };
    farm.until("the lost run is made up for", next).await;
    let report = coordinator.stop_sweep(sweep, SweepState::Cancelled).await.unwrap();
    assert!(
        report.sweep.notes.iter().any(|note| note.contains("report is missing or damaged")),
        "{report:?}"
    );
    let closed = async |farm: &Farm| farm.db.sweep(sweep).await.unwrap().unwrap().report;
    farm.until("the report is recorded", closed).await;
    assert_eq!(farm.db.count_unsettled(sweep).await.unwrap(), 0);
    let report = coordinator.report(sweep).await.unwrap();
    assert!(
        !report.sweep.notes.iter().any(|note| note.contains("cancelled")),
        "nothing is lost by cancelling"
    );
}

#[tokio::test]
async fn a_cancelled_sweep_whose_report_cannot_be_made_says_why_and_is_looked_at_no_more() {
    let farm = Farm::open().await;
    let unreadable = unreadable(Digest::of(b"nobody stored this"));
    farm.db.create_sweep(&unreadable).await.unwrap();
    farm.db.finish_sweep(unreadable.id, &SweepState::Cancelled, now_micros(), None).await.unwrap();
    let _coordinator = farm.coordinator();
    let rests = async |farm: &Farm| farm.db.sweeps_to_advance().await.unwrap().is_empty().then_some(());
    farm.until("no step is owed to it", rests).await;
    assert_eq!(why(&farm.ended(unreadable.id).await), "the question of this sweep cannot be read");
}

/// What came back over lost connections has ended nobody; what came back from workers that had begun it has.
#[tokio::test]
async fn only_a_job_that_was_begun_each_time_is_dead_when_the_queue_gives_it_up() {
    use flakefarm_shared::queue::DELIVERY_LIMIT;
    let farm = Farm::open().await;
    let coordinator = farm.coordinator();
    let sweep = coordinator.submit(&farm.submission(one_run()).await).await.unwrap();
    let job = JobKey::LIST.id(sweep);
    let mut slot = coordinator.queue.slot();
    // A connection that is lost each time, and then workers that end each time.
    for begun in [false, true] {
        let publication = 1 + u32::from(begun);
        for returns in 0..=DELIVERY_LIMIT {
            let wait = Duration::from_secs(60);
            let delivery = tokio::time::timeout(wait, slot.next()).await.expect("it comes back").unwrap();
            assert_eq!((delivery.message.publication, delivery.redeliveries), (publication, returns));
            // The first of them ended before its first sign of life.
            if begun && returns > 0 {
                let queued = async |farm: &Farm| {
                    let row = farm.db.job(job).await.unwrap().unwrap();
                    matches!(row.state, JobState::Queued { publication: now, .. } if now == publication)
                        .then_some(())
                };
                farm.until("it is recorded as queued", queued).await;
                let worker = flakefarm_shared::WorkerId("always the same name".to_owned());
                let in_hand = [(job, publication)];
                farm.db.touch_jobs(&in_hand, &worker, returns, now_micros()).await.unwrap();
            }
            drop(delivery);
        }
    }
    let dead = async |farm: &Farm| {
        let row = farm.db.job(job).await.unwrap().unwrap();
        matches!(&row.state, JobState::Settled { settlement: Settlement::Dead { .. }, .. }).then_some(row)
    };
    let row = farm.until("it is dead", dead).await;
    assert_eq!((row.publications, row.infra_failures, row.lost_leases), (2, 1, 0));
    assert!(row.last_error.unwrap().contains("workers began it only 0 times"));
}

#[tokio::test]
async fn a_blob_store_that_is_not_mounted_is_waited_for() {
    let farm = Farm::open().await;
    let coordinator = farm.coordinator();
    let sweep = coordinator.submit(&farm.submission(one_run()).await).await.unwrap();
    let job = JobKey::LIST.id(sweep);
    farm.until("the listing is planned", async |farm| farm.db.job(job).await.unwrap()).await;
    let (blobs, away) = (farm.directory.path().join("blobs"), farm.directory.path().join("away"));
    // A listing too large to travel inside its row.
    let tests: Vec<String> = (0..2_000).map(|n| Digest::of(format!("{n}").as_bytes()).to_string()).collect();
    let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
    let listed = farm.listed(sweep, &tests).await;
    std::fs::rename(&blobs, &away).unwrap();
    std::fs::create_dir(&blobs).unwrap();
    let mut events = coordinator.subscribe();
    farm.end_listing(sweep, listed).await;
    coordinator.wake.notify_one();
    loop {
        if let Event::Trouble { message, .. } = events.recv().await.unwrap()
            && message.contains("is it mounted")
        {
            break;
        }
    }
    assert_eq!(farm.db.sweep(sweep).await.unwrap().unwrap().state, SweepState::Running);
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::rename(&away, &blobs).unwrap();
    let planned = async |farm: &Farm| (farm.db.jobs(sweep).await.unwrap().len() > 1).then_some(());
    farm.until("it goes on", planned).await;
}

#[tokio::test]
async fn one_of_two_coordinators_works_and_both_tell_their_clients() {
    let farm = Farm::open().await;
    let first_stops = farm.stop.child_token();
    let first = farm.coordinator_until(first_stops.clone());
    let submission = farm.submission(one_run()).await;
    let sweep = first.submit(&submission).await.unwrap();
    farm.end_listing(sweep, farm.listed(sweep, &[]).await).await;
    farm.ended(sweep).await;
    let second = farm.coordinator();
    let (mut of_first, mut of_second) = (first.subscribe(), second.subscribe());
    let sweep = second.submit(&submission).await.unwrap();
    farm.end_listing(sweep, farm.listed(sweep, &[]).await).await;
    let state = farm.ended(sweep).await;
    assert_eq!(why(&state), "the selection matches no test");
    for events in [&mut of_first, &mut of_second] {
        while !matches!(events.recv().await.unwrap(), Event::Finished { sweep: ended, .. } if ended == sweep)
        {
        }
    }
    // Who comes later finds it recorded; and the other takes over at once when the first one ends.
    let recorded: Vec<EventRow> = farm.db.events_after(0, Some(sweep), 10).await.unwrap();
    let words: Vec<&Event> = recorded.iter().map(|row| &row.event).collect();
    assert!(matches!(words[..], [Event::Submitted { .. }, Event::Finished { .. }]), "{words:?}");
    first_stops.cancel();
    let sweep = second.submit(&submission).await.unwrap();
    farm.end_listing(sweep, farm.listed(sweep, &[]).await).await;
    farm.ended(sweep).await;
}

#[tokio::test]
async fn what_is_more_than_the_operator_allows_is_refused_before_and_after_the_tests_are_known() {
    let farm = Farm::open().await;
    let coordinator = farm.coordinator().with_limits(Limits { runs: 10, samples: 15, tests: 10 });
    let asks = |runs| Question { runs: Runs::Fixed(NonZeroU32::new(runs).unwrap()), ..one_run() };
    let refused = coordinator.submit(&farm.submission(asks(4_000_000_000)).await).await;
    assert!(matches!(refused, Err(SubmitError::Limit(LimitExceeded::Runs { .. }))), "{refused:?}");
    assert_eq!(farm.db.sweeps(10).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_project_said_last_is_what_its_newest_other_sweep_found() {
    let farm = Farm::open().await;
    let (old, new) = (SweepId::new(), SweepId::new());
    let submission = farm.submission(one_run()).await;
    let context = farm.blobs.put_json(&submission.context).await.unwrap();
    for (age, id) in [old, new].into_iter().enumerate() {
        let sweep = NewSweep {
            id,
            project: "p".to_owned(),
            revision: None,
            question: serde_json::to_string(&submission.question).unwrap(),
            context: context.clone(),
            class: Class::Bulk,
            seed: 1,
            source: String::new(),
            created_at: now_micros() + age as i64,
        };
        farm.db.create_sweep(&sweep).await.unwrap();
    }
    let verdict = |verdict: &str| crate::db::VerdictRow {
        project: "p".to_owned(),
        test: TestId::from("a::b"),
        verdict: verdict.to_owned(),
        attempts: 1,
        failures: 0,
        estimate: 0.0,
        lower: 0.0,
        upper: 1.0,
        score: 0.0,
        p50_ms: 1.0,
        finished_at: 1,
        fingerprint: None,
    };
    farm.db.record_verdicts(old, &[verdict("healthy")]).await.unwrap();
    farm.db.finish_sweep(old, &SweepState::Answered, now_micros(), None).await.unwrap();
    let before = farm.db.last_verdicts("p", new).await.unwrap();
    assert_eq!(before[&TestId::from("a::b")], "healthy");
    assert!(farm.db.last_verdicts("other", new).await.unwrap().is_empty());
}

/// The schedule of the test's project, with the moment it fires next.
async fn schedule(farm: &Farm) -> (crate::db::ScheduleRow, flakefarm_shared::UnixMicros) {
    let row = farm.db.schedules().await.unwrap().remove(0);
    let due = row.next_at.unwrap();
    (row, due)
}

#[tokio::test]
async fn a_schedule_fires_once_for_what_was_missed_and_never_beside_its_own_sweep() {
    let farm = Farm::open().await;
    let stopped = CancellationToken::new();
    stopped.cancel();
    // Two coordinators whose loops do not run: the test says what time it is.
    let (one, two) = (farm.coordinator_until(stopped.clone()), farm.coordinator_until(stopped));
    let submission = farm.submission(one_run()).await;
    let wanted = |cron, zone| WantedSchedule {
        name: "nightly",
        cron,
        zone,
        submission: &submission,
        source: None,
        secret: None,
        proposes: false,
    };
    let sweeps = async || {
        let mut sweeps = farm.db.sweeps(20).await.unwrap();
        sweeps.retain(|sweep| sweep.project != CONTROL);
        sweeps
    };
    let refused = one.put_schedule(wanted("0 2 * * *", "Europe/Atlantis")).await.unwrap();
    assert!(refused.unwrap_err().hint().contains("Europe/Berlin"));
    let never = one.put_schedule(wanted("0 2 30 2 *", "UTC")).await.unwrap();
    assert!(never.unwrap_err().to_string().contains("never"));
    one.put_schedule(wanted("0 2 * * *", "UTC")).await.unwrap().unwrap();
    let (_, due) = schedule(&farm).await;
    one.fire_due(due - 1).await.unwrap();
    assert_eq!(sweeps().await.len(), 0, "not yet");
    // A week late, by both at once: one sweep.
    let day = 24 * 3_600 * 1_000_000;
    let (first, second) = tokio::join!(one.fire_due(due + 7 * day), two.fire_due(due + 7 * day));
    first.unwrap();
    second.unwrap();
    let found = sweeps().await;
    assert_eq!(found.len(), 1, "{found:?}");
    // It still runs: the next firing passes, and the one after it does not.
    let (row, due) = schedule(&farm).await;
    assert_eq!(row.last_sweep, Some(found[0].id.0));
    one.fire_due(due).await.unwrap();
    assert_eq!(sweeps().await.len(), 1);
    assert!(matches!(one.run_schedule(&row).await, Ok(FiredByHand::StillRuns)));
    farm.db.finish_sweep(found[0].id, &SweepState::Cancelled, now_micros(), None).await.unwrap();
    let (row, due) = schedule(&farm).await;
    assert_eq!(row.skipped_at, Some(due - day));
    two.fire_due(due).await.unwrap();
    assert_eq!(sweeps().await.len(), 2);
    let (row, _) = schedule(&farm).await;
    farm.db.pause_schedule(row.id, Some(due), None).await.unwrap();
    one.fire_due(due + 30 * day).await.unwrap();
    assert_eq!(sweeps().await.len(), 2, "paused");
}

/// Proves what it is asked for, or waits until it is stopped.
#[derive(Debug)]
enum Scripted {
    Proves,
    Waits,
}

impl Repairer for Scripted {
    fn repair(
        &self,
        job: RepairJob,
        _: Coordinator,
        stop: CancellationToken,
    ) -> futures::future::BoxFuture<'static, Result<RepairEnd, RepairTrouble>> {
        let proves = matches!(self, Scripted::Proves);
        Box::pin(async move {
            if !proves {
                stop.cancelled().await;
                return Err(RepairTrouble::Stopped);
            }
            Ok(RepairEnd {
                patch: Some("a patch".to_owned()),
                repaired: Some(job.request.context.snapshot),
                mended: vec!["t".to_owned()],
                ..RepairEnd::without(RepairState::Proved, None)
            })
        })
    }
}

#[tokio::test]
async fn repairs_are_left_taken_up_ended_once_and_looked_after() {
    let farm = Farm::open().await;
    let repairing = |scripted, stop: CancellationToken| {
        let queue = Queue::open("embedded:", Role::Coordinator).unwrap();
        let coordinator = Coordinator::new(farm.db.clone(), queue, farm.blobs.clone(), DEFAULT_LEASE)
            .with_repairer(Arc::new(scripted), 2);
        let running = coordinator.clone();
        tokio::spawn(async move { running.run(stop).await });
        coordinator
    };
    let submission = farm.submission(Question::detect(1)).await;
    let request = RepairRequest {
        context: submission.context,
        question: submission.question,
        class: Class::Interactive,
        tests: Vec::new(),
        base: None,
        attempts: None,
        look_budget: None,
        mend_budget: None,
        source: "here".to_owned(),
    };
    let becomes = async |id: uuid::Uuid, wanted: RepairState| {
        let seen = async |farm: &Farm| {
            let row = farm.db.repair(id).await.unwrap().unwrap();
            (row.state().unwrap() == wanted).then_some(row)
        };
        farm.until(wanted.word(), seen).await
    };

    // One of a project at a time; at the end of its coordinator it waits again, as if it had not been begun.
    let first_ends = farm.stop.child_token();
    let first = repairing(Scripted::Waits, first_ends.clone());
    let (one, two) = (first.ask_repair(&request).await.unwrap(), first.ask_repair(&request).await.unwrap());
    becomes(one, RepairState::Running).await;
    assert_eq!(farm.db.repair(two).await.unwrap().unwrap().state().unwrap(), RepairState::Queued);
    first_ends.cancel();
    assert_eq!(becomes(one, RepairState::Queued).await.tries, 0);

    let second = repairing(Scripted::Proves, farm.stop.child_token());
    let row = becomes(one, RepairState::Proved).await;
    assert_eq!((row.tries, row.patch.as_deref()), (1, Some("a patch")));
    becomes(two, RepairState::Proved).await;
    assert!(!second.cancel_repair(&row).await.unwrap(), "what has ended stays as it is");

    // What is accepted runs on, and is looked after until that is over.
    let sweep = second.accept_repair(&row).await.unwrap().unwrap();
    let further = farm.db.sweep(sweep).await.unwrap().unwrap();
    let asked: Question = serde_json::from_str(&further.question).unwrap();
    assert_eq!((further.class, asked.runs_per_test()), (Class::Bulk, 59));
    let row = becomes(one, RepairState::Probation).await;
    assert_eq!(second.accept_repair(&row).await.unwrap(), None, "accepted once");
    second.cancel(&further).await.unwrap();
    becomes(one, RepairState::Unproven).await;

    // What cannot be carried out is not taken.
    let hopeless = RepairRequest { source: "hopeless".to_owned(), ..request.clone() };
    let no_farm = Coordinator::new(
        farm.db.clone(),
        Queue::open("embedded:", Role::Coordinator).unwrap(),
        farm.blobs.clone(),
        DEFAULT_LEASE,
    );
    assert!(matches!(no_farm.ask_repair(&hopeless).await, Err(RepairRefused::NoRepairer)));
    farm.stop.cancel();
    let missing = Digest::of(b"never stored");
    let nowhere = RepairRequest {
        context: SweepContext { snapshot: missing, ..request.context.clone() },
        ..request.clone()
    };
    let refused = second.ask_repair(&nowhere).await.unwrap_err();
    assert!(refused.to_string().contains("upload it first"), "{refused}");
}
