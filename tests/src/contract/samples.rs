//! The laws of the samples port. Each takes a store of its own and empty, and panics where the
//! store breaks the law. An adapter passes all of them or is not an adapter.

use crate::eventually::eventually;
use flakefarm_shared::ids::{JobId, TestId};
use flakefarm_shared::samples::{
    Appended, Chunk, Phases, Point, PointOutcome, Retention, SampleError, SampleStore, StoredPoint, codec,
};
use flakefarm_shared::{TreatmentClass, UnixMicros};
use futures::future::join_all;
use std::time::Duration;
use uuid::Uuid;

const PROJECT: &str = "contract";
const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-02-28: the next day is in another month.
const START: UnixMicros = 20_512 * DAY;

/// The run that chunks are of where it does not matter.
const RUN: Uuid = Uuid::from_u128(0x11);

/// What stores are opened with for [`expired_points_are_never_read`].
pub const SHORT_RETENTION: Retention = Retention { points: Duration::from_secs(1) };

/// What was appended is read, oldest first, with every property of a point.
pub async fn appended_points_are_read_back(store: &dyn SampleStore) {
    store.check().await.expect("the store is usable");
    let test = TestId::from("a::b");
    assert!(points(store, &test).await.is_empty(), "a law needs an empty store");
    let (early, late) = (point(START, 0), point(START + DAY - 1, 65_535));
    let skip = Point { outcome: PointOutcome::Skip, wall_us: 0, concurrency: 255, ..point(START + 5, 7) };
    let longest = Point {
        wall_us: u32::MAX,
        outcome: PointOutcome::Fail,
        phases: Some(Phases { setup_us: 4_095, teardown_us: 0 }),
        signature: Some(u64::MAX),
        ..point(START + 6, 8)
    };
    let chunk = chunk(&test, vec![late, longest, skip, early]);
    assert_eq!(append(store, &[chunk]).await, [Appended::New]);
    assert_eq!(points(store, &test).await, [early, skip, longest, late]);
    assert_eq!(append(store, &[]).await, []);
}

/// A range includes its start and excludes its end, for points and for roll-ups.
pub async fn ranges_include_their_start_and_exclude_their_end(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let times = [START, START + HOUR, START + DAY, START + DAY + HOUR];
    append(store, &of_job(&test, &times.map(|at| point(at, 0)))).await;
    for (from, to, expect) in [
        (START, START + DAY + HOUR, &times[..3]),
        (START + 1, START + DAY + HOUR + 1, &times[1..]),
        (START + HOUR, START + HOUR, &[]),
        (START + DAY, START, &[]),
        (i64::MIN, i64::MAX, &times[..]),
    ] {
        let read = store.points(PROJECT, &test, from, to).await.expect("points are read");
        assert_eq!(read.iter().map(|p| p.point.at).collect::<Vec<_>>(), expect, "points of {from}..{to}");
    }
}

/// A point names its run and says what it is evidence of, also where one job made several kinds.
pub async fn points_name_their_run_and_class(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let (plain, stressed) = (point(START, 1), point(START + 1, 2));
    let of_job = [(TreatmentClass::Plain, plain), (TreatmentClass::Stressed, stressed)];
    let job = JobId::new();
    append(store, &codec::chunks(PROJECT, &test, RUN, job, &of_job)).await;
    let other = Uuid::from_u128(0x22);
    append(store, &codec::chunks(PROJECT, &test, other, JobId::new(), &[(TreatmentClass::Ci, plain)])).await;
    let read = store.points(PROJECT, &test, START, START + DAY).await.expect("points are read");
    let of = |point, run, class| StoredPoint { point, run: Some(codec::run_tag(run)), class };
    let mut expect = [
        of(plain, RUN, TreatmentClass::Plain),
        of(plain, other, TreatmentClass::Ci),
        of(stressed, RUN, TreatmentClass::Stressed),
    ];
    codec::sort_stored(&mut expect);
    assert_eq!(read, expect);
    let again = append(store, &codec::chunks(PROJECT, &test, RUN, job, &of_job)).await;
    assert_eq!(again, [Appended::Duplicate; 2]);
}

/// A day of many tests is what each test's points of that day are.
pub async fn a_day_is_read_for_many_tests_at_once(store: &dyn SampleStore) {
    let tests: Vec<TestId> = (0..1_100).map(|number| TestId(format!("t{number}"))).collect();
    let chunks: Vec<Chunk> = tests
        .iter()
        .step_by(2)
        .flat_map(|test| [chunk(test, vec![point(START, 1)]), chunk(test, vec![point(START + DAY, 2)])])
        .collect();
    append(store, &chunks).await;
    let days = store.points_of_day(PROJECT, &tests, codec::day_of(START)).await.expect("a day is read");
    assert_eq!(days.len(), tests.len());
    for (number, points) in days.iter().enumerate() {
        let expect: &[UnixMicros] = if number % 2 == 0 { &[START] } else { &[] };
        assert_eq!(points.iter().map(|stored| stored.point.at).collect::<Vec<_>>(), expect, "test {number}");
    }
    assert!(store.points_of_day(PROJECT, &[], 1).await.expect("nothing is read").is_empty());
}

/// The key of a chunk decides: appending it again, even with other points, changes nothing.
pub async fn a_duplicate_append_changes_nothing(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let first = chunk(&test, vec![point(START, 1), point(START + HOUR, 2)]);
    assert_eq!(append(store, std::slice::from_ref(&first)).await, [Appended::New]);
    let before = points(store, &test).await;
    let rerun = Chunk { points: vec![point(START + 2 * HOUR, 9)], ..first.clone() };
    assert_eq!(append(store, &[first.clone(), rerun]).await, [Appended::Duplicate; 2]);
    assert_eq!(points(store, &test).await, before);

    let next = Chunk { chunk: 1, ..first.clone() };
    let answers = append(store, &[first.clone(), next.clone(), next]).await;
    assert_eq!(answers, [Appended::Duplicate, Appended::New, Appended::Duplicate], "answers keep the order");
    assert_eq!(points(store, &test).await.len(), 4);
}

/// Appends of one chunk that race store it once, whoever wins.
pub async fn racing_duplicates_are_stored_once(store: &dyn SampleStore) {
    let test = TestId::from("t");
    for round in 0..10 {
        let chunk = [chunk(&test, vec![point(START + round * MINUTE, 1), point(START + round * MINUTE, 2)])];
        let answers = join_all((0..16).map(|_| store.append(&chunk))).await;
        let new =
            answers.iter().filter(|answer| matches!(answer, Ok(all) if all[..] == [Appended::New])).count();
        assert_eq!(new, 1, "round {round}: {answers:?}");
    }
    assert_eq!(points(store, &test).await.len(), 20);
}

/// Many chunks in one call are answered in their order.
pub async fn many_chunks_are_answered_in_order(store: &dyn SampleStore) {
    let chunks: Vec<Chunk> = (0..1_201)
        .map(|number| {
            chunk(&TestId(format!("t{}", number % 300)), vec![point(START + number * MINUTE / 10, 0)])
        })
        .collect();
    let known: Vec<Chunk> = chunks.iter().step_by(7).cloned().collect();
    append(store, &known).await;
    for (number, answer) in append(store, &chunks).await.into_iter().enumerate() {
        let expect = if number % 7 == 0 { Appended::Duplicate } else { Appended::New };
        assert_eq!(answer, expect, "chunk {number}");
    }
    assert_eq!(points(store, &TestId::from("t0")).await.len(), 5);
    assert_eq!(points(store, &TestId::from("t1")).await.len(), 4);
}

/// The order in which chunks arrive cannot be seen by a reader.
pub async fn arrival_order_does_not_matter(store: &dyn SampleStore) {
    let (sorted, shuffled) = (TestId::from("sorted"), TestId::from("shuffled"));
    let jobs = random_jobs(1);
    for points in &jobs {
        append(store, &of_job(&sorted, points)).await;
    }
    for points in jobs.iter().rev() {
        let mut chunks = of_job(&shuffled, points);
        chunks.reverse();
        append(store, &chunks).await;
    }
    assert_eq!(points(store, &sorted).await, points(store, &shuffled).await);
}

/// A sample that arrives weeks late belongs to the day it was taken.
pub async fn late_samples_go_by_their_own_day(store: &dyn SampleStore) {
    let test = TestId::from("t");
    append(store, &[chunk(&test, vec![point(START, 1)])]).await;
    append(store, &[chunk(&test, vec![point(START - 40 * DAY + 3 * HOUR, 2)])]).await;
    let old =
        store.points(PROJECT, &test, START - 40 * DAY, START - 39 * DAY).await.expect("points are read");
    assert_eq!(old.len(), 1);
}

/// Any text names a project or a test, and similar names do not meet.
pub async fn any_text_names_a_project_and_a_test(store: &dyn SampleStore) {
    let names = ["", " ", "größe", "gröβe", "テスト[日本語-🦀]", "a{b}*?[c]\\", "a\0b", "a\n'b\"", "ab", "a"];
    let mut all = Vec::new();
    for project in names {
        for test in names {
            let point = point(START + all.len() as i64, 3);
            all.push((project, TestId::from(test), point));
        }
    }
    let chunks: Vec<Chunk> = all
        .iter()
        .map(|(project, test, point)| Chunk { project: (*project).to_owned(), ..chunk(test, vec![*point]) })
        .collect();
    append(store, &chunks).await;
    for (project, test, point) in &all {
        let read = store.points(project, test, START, START + DAY).await.expect("points are read");
        let read: Vec<Point> = read.iter().map(|stored| stored.point).collect();
        assert_eq!(read, [*point], "project {project:?}, test {test:?}");
    }
}

/// A chunk that breaks the port's rules is refused, and so is everything appended with it.
pub async fn an_impossible_chunk_is_refused(store: &dyn SampleStore) {
    let test = TestId::from("t");
    for points in [vec![], vec![point(START, 0), point(START + DAY, 1)], vec![point(-1, 0)]] {
        let chunks = [chunk(&test, vec![point(START, 0)]), chunk(&test, points)];
        let answer = store.append(&chunks).await;
        assert!(matches!(answer, Err(SampleError::Refused(_))), "{answer:?}");
    }
    assert_eq!(points(store, &test).await, []);
}

/// Points vanish at their time ([`SHORT_RETENTION`]); then an old chunk is new again.
pub async fn expired_points_are_never_read(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let chunk = [chunk(&test, vec![point(START, 0), point(START + HOUR, 1)])];
    assert_eq!(append(store, &chunk).await, [Appended::New]);
    eventually("points expire", Duration::from_secs(20), async || {
        let seen = points(store, &test).await.len();
        if seen == 0 { Ok(()) } else { Err(format!("{seen} points")) }
    })
    .await;
    assert_eq!(append(store, &chunk).await, [Appended::New]);
}

/// First half of the restart law: what is to survive.
pub async fn before_restart(store: &dyn SampleStore) -> Chunk {
    let chunk = chunk(&TestId::from("restarted"), vec![point(START, 1), point(START + HOUR, 2)]);
    assert_eq!(append(store, std::slice::from_ref(&chunk)).await, [Appended::New]);
    chunk
}

/// Second half: the store, by the same handle or another, still knows the chunk and takes new ones.
pub async fn after_restart(store: &dyn SampleStore, kept: Chunk) {
    eventually("the store answers again", Duration::from_secs(20), async || {
        store.check().await.map_err(|error| error.to_string())
    })
    .await;
    let next = Chunk { chunk: kept.chunk + 1, ..kept.clone() };
    assert_eq!(append(store, &[kept.clone(), next]).await, [Appended::Duplicate, Appended::New]);
    assert_eq!(points(store, &kept.test).await.len(), 4);
}

fn point(at: UnixMicros, attempt: u16) -> Point {
    Point {
        at,
        wall_us: 1_000 + u32::from(attempt),
        outcome: if attempt.is_multiple_of(3) { PointOutcome::Fail } else { PointOutcome::Pass },
        concurrency: 2,
        worker: 0xBEEF,
        attempt,
        phases: None,
        signature: None,
    }
}

/// A chunk of a job of its own.
fn chunk(test: &TestId, points: Vec<Point>) -> Chunk {
    let (project, test) = (PROJECT.to_owned(), test.clone());
    Chunk { project, test, run: RUN, class: TreatmentClass::Plain, job: JobId::new(), chunk: 0, points }
}

/// The chunks of a job of its own.
fn of_job(test: &TestId, points: &[Point]) -> Vec<Chunk> {
    let points: Vec<_> = points.iter().map(|point| (TreatmentClass::Plain, *point)).collect();
    codec::chunks(PROJECT, test, RUN, JobId::new(), &points)
}

/// Forty jobs of twenty attempts, spread over three days, with durations of all sizes: always the same for a seed.
fn random_jobs(seed: u64) -> Vec<Vec<Point>> {
    let mut state = seed;
    let mut draw = move |below: u64| {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    };
    let mut job = || {
        let start = START + draw(3 * DAY as u64 - HOUR as u64) as i64;
        let scale = 1 << draw(31);
        (0..20)
            .map(|attempt| Point {
                at: start + i64::from(attempt) * MINUTE,
                wall_us: scale + draw(u64::from(scale)) as u32,
                outcome: [PointOutcome::Pass, PointOutcome::Fail, PointOutcome::Skip][draw(3) as usize],
                ..point(0, attempt)
            })
            .collect()
    };
    (0..40).map(|_| job()).collect()
}

async fn append(store: &dyn SampleStore, chunks: &[Chunk]) -> Vec<Appended> {
    store.append(chunks).await.expect("chunks are appended")
}

async fn points(store: &dyn SampleStore, test: &TestId) -> Vec<Point> {
    let read = store.points(PROJECT, test, START - 60 * DAY, START + 60 * DAY).await;
    read.expect("points are read").into_iter().map(|stored| stored.point).collect()
}
