//! A year of schedules in three zones, with their changes of the clocks, through PostgreSQL: two
//! coordinators that look at the same moments, are killed in the middle of a firing, start anew, and are
//! away for hours. Each firing makes exactly one sweep.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use flakefarm_coordinator::db::{Db, ScheduleRow, SweepState};
use flakefarm_coordinator::engine::DEFAULT_LEASE;
use flakefarm_coordinator::plan::Question;
use flakefarm_coordinator::schedule::Rhythm;
use flakefarm_coordinator::{Coordinator, Submission};
use flakefarm_shared::blobs::Blobs;
use flakefarm_shared::project::Framework;
use flakefarm_shared::queue::{Queue, Role};
use flakefarm_shared::{Class, Digest, ProjectSpec, SweepContext, Typed, UnixMicros, WIRE_VERSION, World};
use flakefarm_tests::dice::Dice;
use flakefarm_tests::harness::in_schema;
use futures::poll;
use std::collections::BTreeMap;
use std::pin::pin;
use uuid::Uuid;

const HOUR: i64 = 3_600_000_000;
/// 2026-01-01T12:00:00Z.
const BEGIN: UnixMicros = 1_767_268_800_000_000;
const DAYS: usize = 365;
/// Project, cron, zone, the usual time on the wall, and days at which it is another: those on which the
/// clocks skip it.
const SCHEDULES: [(&str, &str, &str, &str, usize); 4] = [
    ("berlin", "30 2 * * *", "Europe/Berlin", "02:30", 1),
    ("new-york", "30 2 * * *", "America/New_York", "02:30", 1),
    // Half an hour: 02:15 is skipped in October, and 01:45 comes twice in April.
    ("skipped", "15 2 * * *", "Australia/Lord_Howe", "02:15", 1),
    ("twice", "45 1 * * *", "Australia/Lord_Howe", "01:45", 0),
];

fn submission(project: &str) -> String {
    let project = ProjectSpec::of_image(project, Framework::Pytest, "none");
    let context = SweepContext {
        v: WIRE_VERSION,
        project,
        snapshot: Digest::of(b"nothing that is stored: the sweeps are never run"),
        revision: None,
        under: World::Plain,
        typed: Typed::default(),
    };
    let source = String::new();
    serde_json::to_string(&Submission { context, question: Question::detect(1), class: Class::Bulk, source })
        .unwrap()
}

async fn coordinator(url: &str, blobs: &Blobs) -> Coordinator {
    let queue = Queue::open("embedded:", Role::Coordinator).unwrap();
    Coordinator::new(Db::open(url).await.unwrap(), queue, blobs.clone(), DEFAULT_LEASE)
}

/// A coordinator that is killed after some steps of looking at what is due.
async fn killed(coordinator: &Coordinator, now: UnixMicros, steps: u64) {
    let mut firing = pin!(coordinator.fire_due(now));
    for _ in 0..steps {
        if poll!(firing.as_mut()).is_ready() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_of_firings_makes_one_sweep_each_through_restarts_and_two_coordinators() {
    Box::pin(in_schema(async |url| {
        let directory = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&format!("file://{}", directory.path().display())).unwrap();
        let db = Db::open(url).await.unwrap();
        let mut expected: BTreeMap<String, Vec<UnixMicros>> = BTreeMap::new();
        let mut ids = BTreeMap::new();
        for (project, cron, zone, _, _) in SCHEDULES {
            let times = Rhythm::parse(cron, zone).unwrap().next_times(BEGIN, DAYS);
            let row = ScheduleRow {
                id: Uuid::now_v7(),
                project: project.to_owned(),
                name: "nightly".to_owned(),
                cron: cron.to_owned(),
                zone: zone.to_owned(),
                submission: submission(project),
                created_at: BEGIN,
                next_at: Some(times[0]),
                paused_at: None,
                last_at: None,
                last_sweep: None,
                skipped_at: None,
                source: None,
                secret: None,
                proposes: false,
            };
            db.put_schedule(&row).await.unwrap();
            ids.insert(project.to_owned(), row.id);
            expected.insert(project.to_owned(), times);
        }
        let mut moments: Vec<UnixMicros> = expected.values().flatten().copied().collect();
        moments.sort_unstable();
        moments.dedup();

        let mut dice = Dice(15);
        let mut coordinators = [coordinator(url, &blobs).await, coordinator(url, &blobs).await];
        let (mut kills, mut restarts, mut away_until) = (0, 0, 0);
        for moment in moments {
            if moment < away_until {
                continue;
            }
            // Nobody is there for some hours, less than a day: what was missed is made up for.
            if dice.next(40) == 0 {
                away_until = moment + HOUR * (1 + dice.next(9) as i64);
                continue;
            }
            if dice.next(60) == 0 {
                let which = dice.next(2) as usize;
                coordinators[which].db().close().await;
                coordinators[which] = coordinator(url, &blobs).await;
                restarts += 1;
            }
            let now = moment + dice.next(3) as i64 * 500_000;
            let [one, other] = &coordinators;
            if dice.next(10) == 0 {
                killed(one, now, 1 + dice.next(8)).await;
                kills += 1;
            }
            match dice.next(4) {
                0 => {
                    let (first, second) = tokio::join!(one.fire_due(now), other.fire_due(now));
                    first.and(second).unwrap();
                }
                1 => other.fire_due(now).await.unwrap(),
                _ => one.fire_due(now).await.unwrap(),
            }
            // Its sweep has ended before the next night.
            for sweep in db.unfinished_sweeps().await.unwrap() {
                db.finish_sweep(sweep.id, &SweepState::Answered, now, None).await.unwrap();
            }
        }
        coordinators[0].fire_due(BEGIN + HOUR * 24 * 365).await.unwrap();
        assert!(kills > 50 && restarts > 5, "{kills} kills, {restarts} restarts");

        for (project, cron, zone, wall, skipped) in SCHEDULES {
            let firings = db.firings(ids[project], 2_000).await.unwrap();
            let mut due: Vec<UnixMicros> = firings.iter().map(|firing| firing.due).collect();
            due.reverse();
            assert_eq!(due, expected[project], "{project}: one firing for each time");
            // What the schedule's people see: each day once, at the time that they wrote.
            let rhythm = Rhythm::parse(cron, zone).unwrap();
            let words: Vec<String> = due.iter().map(|at| rhythm.words(*at)).collect();
            let mut days: Vec<&str> = words.iter().map(|words| &words[..10]).collect();
            days.dedup();
            assert_eq!(days.len(), DAYS, "{project}");
            let other: Vec<&String> = words.iter().filter(|words| &words[11..16] != wall).collect();
            assert_eq!(other.len(), skipped, "{project}: {other:?}");
            let filter = flakefarm_coordinator::db::SweepFilter {
                projects: Some(vec![project.to_owned()]),
                ..Default::default()
            };
            let sweeps = db.sweeps_page(&filter, 2_000).await.unwrap();
            let mut made: Vec<Uuid> = sweeps.iter().map(|sweep| sweep.id.0).collect();
            let mut wanted: Vec<Uuid> = firings.iter().map(|firing| firing.sweep).collect();
            made.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(made, wanted, "{project}: exactly one sweep of each firing");
        }
    }))
    .await;
}
