//! Projects, tests, runs, and the past that a planner reads.

use super::{AWKWARD, NOW, SECOND, new_sweep, verdict};
use flakefarm_coordinator::db::{
    Db, NewSweep, ProjectRow, RunRow, SeenTest, Settled, SweepState, TestRow, VerdictRow,
};
use flakefarm_coordinator::plan::PastRun;
use flakefarm_shared::{Digest, Refusal, RunOrigin, SweepId, TestId, TreatmentClass};

fn run_of(sweep: &NewSweep, class: TreatmentClass) -> RunRow {
    RunRow {
        id: sweep.id.0,
        project: sweep.project.clone(),
        origin: RunOrigin::Sweep,
        class,
        level: Some("container".to_owned()),
        revision: sweep.revision.clone(),
        branch: None,
        environment: None,
        variant: None,
        ci: None,
        attempt: None,
        started_at: sweep.created_at,
        finished_at: None,
    }
}

/// A sweep and its run, `place` seconds after the others, running.
async fn begun(db: &Db, project: &str, class: TreatmentClass, place: i64) -> SweepId {
    let sweep = NewSweep { created_at: NOW + place * SECOND, ..new_sweep(project) };
    db.create_sweep(&sweep).await.unwrap();
    db.record_run(&run_of(&sweep, class)).await.unwrap();
    sweep.id
}

async fn ended(db: &Db, sweep: SweepId, state: &SweepState, at: i64) {
    assert_eq!(db.finish_sweep(sweep, state, at, None).await.unwrap(), Settled::First);
}

/// A project's past is what its own runs recorded that had ended, of the tests that ran.
pub async fn past_runs_are_of_runs_that_had_ended(db: &Db) {
    let past = async |before, limit| {
        let mut runs = db.past_runs("with a past", TreatmentClass::Plain, before, limit).await.unwrap();
        runs.sort_by(|a, b| (a.finished_at, &a.test).cmp(&(b.finished_at, &b.test)));
        runs
    };
    let mut ids = Vec::new();
    for place in 0..3 {
        let sweep = begun(db, "with a past", TreatmentClass::Plain, place).await;
        let skipped = VerdictRow { attempts: 0, fingerprint: None, ..verdict("with a past", "skipped", 0) };
        let ran = VerdictRow { finished_at: NOW + place * SECOND, ..verdict("with a past", AWKWARD, 1) };
        db.record_verdicts(sweep, &[ran, skipped]).await.unwrap();
        ids.push(sweep);
    }
    assert_eq!(past(i64::MAX, 10).await, [], "none has ended");
    for (place, sweep) in (0..).zip(&ids) {
        ended(db, *sweep, &SweepState::Answered, NOW + place * SECOND).await;
    }
    let run = |place: i64| PastRun {
        test: TestId::from(AWKWARD),
        fingerprint: Some(Digest::of(b"touched")),
        attempts: u32::MAX,
        failures: 1,
        seconds: 12_345.678_9 / 1e3,
        finished_at: NOW + place * SECOND,
    };
    assert_eq!(past(i64::MAX, 10).await, [run(0), run(1), run(2)]);
    assert_eq!(past(i64::MAX, 2).await, [run(1), run(2)], "the newest");
    assert_eq!(past(NOW + 2 * SECOND, 10).await, [run(0), run(1)]);
    assert_eq!(db.past_runs("without a past", TreatmentClass::Plain, i64::MAX, 10).await.unwrap(), []);
}

/// Fifty diagnoses, stressed or failed sweeps do not push one plain sweep out of the window.
pub async fn only_runs_of_the_class_that_recorded_something_take_a_place(db: &Db) {
    let plain = begun(db, "p", TreatmentClass::Plain, 0).await;
    db.record_verdicts(plain, &[verdict("p", "t", 1)]).await.unwrap();
    ended(db, plain, &SweepState::Answered, NOW).await;
    for place in 1..=10 {
        for class in TreatmentClass::ALL.into_iter().filter(|class| *class != TreatmentClass::Plain) {
            let other = begun(db, "p", class, place).await;
            db.record_verdicts(other, &[verdict("p", "t", 7)]).await.unwrap();
            ended(db, other, &SweepState::Answered, NOW + SECOND).await;
        }
        let refusal = Refusal { message: "no".to_owned(), log: String::new(), hint: None };
        let failed = begun(db, "p", TreatmentClass::Plain, place).await;
        ended(db, failed, &SweepState::Failed(refusal), NOW + SECOND).await;
        let empty = begun(db, "p", TreatmentClass::Plain, place).await;
        db.record_verdicts(empty, &[VerdictRow { attempts: 0, ..verdict("p", "t", 0) }]).await.unwrap();
        ended(db, empty, &SweepState::Cancelled, NOW + SECOND).await;
    }
    let past = db.past_runs("p", TreatmentClass::Plain, i64::MAX, 1).await.unwrap();
    assert_eq!(past.iter().map(|run| run.failures).collect::<Vec<_>>(), [1]);
    let unisolated = db.past_runs("p", TreatmentClass::Unisolated, i64::MAX, 100).await.unwrap();
    assert_eq!(unisolated.iter().map(|run| run.failures).collect::<Vec<_>>(), [7; 10], "its own class");
    let classes: Vec<TreatmentClass> =
        db.test_history("p", &TestId::from("t"), 3).await.unwrap().into_iter().map(|row| row.class).collect();
    assert_eq!(classes.len(), 3, "{classes:?}");
    assert!(!classes.contains(&TreatmentClass::Unknown) || classes.iter().any(|class| *class != classes[0]));
}

/// A run is recorded once; what becomes known of it later is added, and nothing else changes.
pub async fn runs_are_recorded_once_and_completed(db: &Db) {
    let begun = RunRow { project: AWKWARD.to_owned(), ..run_of(&new_sweep("x"), TreatmentClass::Plain) };
    db.record_run(&begun).await.unwrap();
    assert_eq!(db.run(begun.id).await.unwrap(), Some(begun.clone()));
    let completed = RunRow {
        origin: RunOrigin::Ci,
        class: TreatmentClass::Ci,
        level: None,
        branch: Some(AWKWARD.to_owned()),
        environment: Some("sha256:1".to_owned()),
        variant: Some("os=linux".to_owned()),
        ci: Some(r#"{"provider":"github"}"#.to_owned()),
        finished_at: Some(NOW + SECOND),
        ..begun.clone()
    };
    for _ in 0..2 {
        db.record_run(&RunRow { started_at: NOW + 5, ..completed.clone() }).await.unwrap();
        assert_eq!(db.run(begun.id).await.unwrap(), Some(completed.clone()), "it started when it started");
    }
    let later = RunRow { id: SweepId::new().0, started_at: NOW + SECOND, ..begun.clone() };
    let elsewhere = RunRow { id: SweepId::new().0, project: "elsewhere".to_owned(), ..begun.clone() };
    db.record_run(&later).await.unwrap();
    db.record_run(&elsewhere).await.unwrap();
    assert_eq!(db.runs(AWKWARD, 0, i64::MAX, 9).await.unwrap(), [later.clone(), completed.clone()]);
    assert_eq!(db.runs(AWKWARD, NOW, NOW + SECOND, 9).await.unwrap(), [completed]);
    assert_eq!(db.runs(AWKWARD, 0, i64::MAX, 1).await.unwrap(), [later]);
    assert_eq!(db.run(SweepId::new().0).await.unwrap(), None);
}

/// A test is known from when it was first seen to when it was last seen, in whatever order that is told.
pub async fn tests_keep_their_first_and_last_sight(db: &Db) {
    let long = "x".repeat(20_000);
    let seen = |test: &str, parts: Option<&str>| SeenTest {
        test: TestId::from(test),
        parts: parts.map(str::to_owned),
    };
    let all = [seen("b", None), seen(AWKWARD, Some("{}")), seen(&long, None), seen("b", None)];
    db.note_tests("p", &all, NOW).await.unwrap();
    db.note_tests("p", &[seen("b", Some("[1]")), seen(AWKWARD, None)], NOW + SECOND).await.unwrap();
    db.note_tests("p", &[seen("b", None)], NOW - SECOND).await.unwrap();
    db.note_tests("other", &[seen("b", None)], NOW).await.unwrap();
    db.note_tests("p", &[], NOW).await.unwrap();
    let row = |test: &str| {
        let test = TestId::from(test);
        async move { db.test("p", &test).await.unwrap().unwrap() }
    };
    let b = row("b").await;
    assert_eq!((b.first_seen, b.last_seen, b.parts.as_deref()), (NOW - SECOND, NOW + SECOND, Some("[1]")));
    let awkward = row(AWKWARD).await;
    assert_eq!((awkward.first_seen, awkward.last_seen), (NOW, NOW + SECOND));
    assert_eq!(awkward.parts.as_deref(), Some("{}"), "what is known stays known");
    let tests: Vec<TestRow> = db.tests("p").await.unwrap();
    let names: Vec<&str> = tests.iter().map(|row| row.test.as_str()).collect();
    assert_eq!(names, ["b", AWKWARD, &long]);
    assert_ne!(tests[0].number, tests[1].number);
    assert_eq!(db.test("p", &TestId::from("B")).await.unwrap(), None);
}

/// A project is its name.
pub async fn projects_are_known_by_their_name(db: &Db) {
    assert_eq!(db.projects().await.unwrap(), []);
    db.set_project("b", "{}", NOW).await.unwrap();
    db.note_tests("a\0", &[SeenTest { test: TestId::from("t"), parts: None }], NOW + 1).await.unwrap();
    db.set_project("b", r#"{"retention":{"points":"7d"}}"#, NOW + 2).await.unwrap();
    let a = ProjectRow { name: "a\u{fffd}".to_owned(), settings: "{}".to_owned(), created_at: NOW + 1 };
    let b = ProjectRow {
        name: "b".to_owned(),
        settings: r#"{"retention":{"points":"7d"}}"#.to_owned(),
        created_at: NOW,
    };
    assert_eq!(db.projects().await.unwrap(), [a, b.clone()]);
    assert_eq!(db.project("b").await.unwrap(), Some(b));
    assert_eq!(db.project("c").await.unwrap(), None);
}
