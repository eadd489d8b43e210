//! The laws of the samples port. Each takes a store of its own and empty, and panics where the
//! store breaks the law. An adapter passes all of them or is not an adapter.

use crate::eventually::eventually;
use flakefarm_shared::UnixMicros;
use flakefarm_shared::ids::{JobId, TestId};
use flakefarm_shared::samples::{
    Appended, Chunk, Point, PointOutcome, Retention, Rollup, SampleError, SampleStore, Span, codec, rollup,
};
use futures::future::join_all;
use std::time::Duration;

const PROJECT: &str = "contract";
const MINUTE: i64 = 60_000_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// 2026-02-28: the next day is in another month.
const START: UnixMicros = 20_512 * DAY;

/// What stores are opened with for [`expired_layers_are_never_read`].
pub const SHORT_RETENTION: Retention = Retention {
    raw: Duration::from_secs(1),
    hourly: Duration::from_secs(1),
    daily: Duration::from_secs(3_600),
};

/// What was appended is read, oldest first, with every property of a point.
pub async fn appended_points_are_read_back(store: &dyn SampleStore) {
    store.check().await.expect("the store is usable");
    let test = TestId::from("a::b");
    assert!(points(store, &test).await.is_empty(), "a law needs an empty store");
    let (early, late) = (point(START, 0), point(START + DAY - 1, 65_535));
    let skip = Point { outcome: PointOutcome::Skip, wall_us: 0, concurrency: 255, ..point(START + 5, 7) };
    let longest = Point { wall_us: u32::MAX, outcome: PointOutcome::Fail, ..point(START + 6, 8) };
    let chunk = chunk(&test, vec![late, longest, skip, early]);
    assert_eq!(append(store, &[chunk]).await, [Appended::New]);
    assert_eq!(points(store, &test).await, [early, skip, longest, late]);
    assert_eq!(append(store, &[]).await, []);
}

/// A range includes its start and excludes its end, for points and for roll-ups.
pub async fn ranges_include_their_start_and_exclude_their_end(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let times = [START, START + HOUR, START + DAY, START + DAY + HOUR];
    append(store, &codec::chunks(PROJECT, &test, JobId::new(), &times.map(|at| point(at, 0)))).await;
    for (from, to, expect) in [
        (START, START + DAY + HOUR, &times[..3]),
        (START + 1, START + DAY + HOUR + 1, &times[1..]),
        (START + HOUR, START + HOUR, &[]),
        (START + DAY, START, &[]),
        (i64::MIN, i64::MAX, &times[..]),
    ] {
        let read = store.points(PROJECT, &test, from, to).await.expect("points are read");
        assert_eq!(read.iter().map(|p| p.at).collect::<Vec<_>>(), expect, "points of {from}..{to}");
        let hours = store.rollups(PROJECT, &test, Span::Hour, from, to).await.expect("hours are read");
        assert_eq!(hours.iter().map(|r| r.start).collect::<Vec<_>>(), expect, "hours of {from}..{to}");
    }
    let days =
        store.rollups(PROJECT, &test, Span::Day, START + 1, START + DAY + 1).await.expect("days are read");
    assert_eq!(days.iter().map(|r| (r.start, r.runs)).collect::<Vec<_>>(), [(START + DAY, 2)]);
}

/// The key of a chunk decides: appending it again, even with other points, changes nothing.
pub async fn a_duplicate_append_changes_nothing(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let first = chunk(&test, vec![point(START, 1), point(START + HOUR, 2)]);
    assert_eq!(append(store, std::slice::from_ref(&first)).await, [Appended::New]);
    let before = everything(store, &test).await;
    let rerun = Chunk { points: vec![point(START + 2 * HOUR, 9)], ..first.clone() };
    assert_eq!(append(store, &[first.clone(), rerun]).await, [Appended::Duplicate; 2]);
    assert_eq!(everything(store, &test).await, before);

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
    let days = rollups(store, &test, Span::Day).await;
    assert_eq!(days.iter().map(|day| day.runs).sum::<u32>(), 20);
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
        append(store, &codec::chunks(PROJECT, &sorted, JobId::new(), points)).await;
    }
    for points in jobs.iter().rev() {
        let mut chunks = codec::chunks(PROJECT, &shuffled, JobId::new(), points);
        chunks.reverse();
        append(store, &chunks).await;
    }
    assert_eq!(points(store, &sorted).await, points(store, &shuffled).await);
    for span in [Span::Hour, Span::Day] {
        assert_close(&rollups(store, &sorted, span).await, &rollups(store, &shuffled, span).await);
    }
}

/// A sample that arrives weeks late belongs to the day it was taken.
pub async fn late_samples_go_by_their_own_day(store: &dyn SampleStore) {
    let test = TestId::from("t");
    append(store, &[chunk(&test, vec![point(START, 1)])]).await;
    append(store, &[chunk(&test, vec![point(START - 40 * DAY + 3 * HOUR, 2)])]).await;
    let starts =
        |rollups: Vec<Rollup>| rollups.iter().map(|rollup| (rollup.start, rollup.runs)).collect::<Vec<_>>();
    assert_eq!(starts(rollups(store, &test, Span::Day).await), [(START - 40 * DAY, 1), (START, 1)]);
    assert_eq!(
        starts(rollups(store, &test, Span::Hour).await),
        [(START - 40 * DAY + 3 * HOUR, 1), (START, 1)]
    );
    let old =
        store.points(PROJECT, &test, START - 40 * DAY, START - 39 * DAY).await.expect("points are read");
    assert_eq!(old.len(), 1);
}

/// Hourly and daily roll-ups say what one pass over the points says.
pub async fn rollups_equal_recomputation_from_points(store: &dyn SampleStore) {
    let test = TestId::from("t");
    for points in random_jobs(2) {
        append(store, &codec::chunks(PROJECT, &test, JobId::new(), &points)).await;
    }
    let points = points(store, &test).await;
    assert!(points.len() > 500);
    for span in [Span::Hour, Span::Day] {
        let found = rollups(store, &test, span).await;
        assert!(found.len() > 2, "the points are of several spans");
        assert_close(&found, &rollup::of_points(span, &points));
    }
}

/// Skips are points, and no roll-up counts them.
pub async fn skips_have_points_and_no_rollups(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let skip = Point { outcome: PointOutcome::Skip, ..point(START, 0) };
    append(store, &[chunk(&test, vec![skip])]).await;
    assert_eq!(points(store, &test).await, [skip]);
    assert_eq!(rollups(store, &test, Span::Hour).await, []);
    assert_eq!(rollups(store, &test, Span::Day).await, []);
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
        assert_eq!(read, [*point], "project {project:?}, test {test:?}");
        let days = store.rollups(project, test, Span::Day, START, START + DAY).await.expect("days are read");
        assert_eq!(days.len(), 1, "project {project:?}, test {test:?}");
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

/// Layers vanish at their own time ([`SHORT_RETENTION`]); then an old chunk is new again.
pub async fn expired_layers_are_never_read(store: &dyn SampleStore) {
    let test = TestId::from("t");
    let chunk = [chunk(&test, vec![point(START, 0), point(START + HOUR, 1)])];
    assert_eq!(append(store, &chunk).await, [Appended::New]);
    eventually("points and hours expire", Duration::from_secs(20), async || {
        let seen = (points(store, &test).await.len(), rollups(store, &test, Span::Hour).await.len());
        if seen == (0, 0) { Ok(()) } else { Err(format!("{} points and {} hours", seen.0, seen.1)) }
    })
    .await;
    assert_eq!(rollups(store, &test, Span::Day).await.len(), 1, "days are kept for an hour");
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
    let days = rollups(store, &kept.test, Span::Day).await;
    assert_eq!(days.iter().map(|day| day.runs).collect::<Vec<_>>(), [4]);
}

fn point(at: UnixMicros, run: u16) -> Point {
    Point {
        at,
        wall_us: 1_000 + u32::from(run),
        outcome: if run.is_multiple_of(3) { PointOutcome::Fail } else { PointOutcome::Pass },
        concurrency: 2,
        worker: 0xBEEF,
        run,
    }
}

/// A chunk of a job of its own.
fn chunk(test: &TestId, points: Vec<Point>) -> Chunk {
    Chunk { project: PROJECT.to_owned(), test: test.clone(), job: JobId::new(), chunk: 0, points }
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
            .map(|run| Point {
                at: start + i64::from(run) * MINUTE,
                wall_us: scale + draw(u64::from(scale)) as u32,
                outcome: [PointOutcome::Pass, PointOutcome::Fail, PointOutcome::Skip][draw(3) as usize],
                ..point(0, run)
            })
            .collect()
    };
    (0..40).map(|_| job()).collect()
}

async fn append(store: &dyn SampleStore, chunks: &[Chunk]) -> Vec<Appended> {
    store.append(chunks).await.expect("chunks are appended")
}

async fn points(store: &dyn SampleStore, test: &TestId) -> Vec<Point> {
    store.points(PROJECT, test, START - 60 * DAY, START + 60 * DAY).await.expect("points are read")
}

async fn rollups(store: &dyn SampleStore, test: &TestId, span: Span) -> Vec<Rollup> {
    store.rollups(PROJECT, test, span, START - 60 * DAY, START + 60 * DAY).await.expect("roll-ups are read")
}

async fn everything(store: &dyn SampleStore, test: &TestId) -> (Vec<Point>, Vec<Rollup>, Vec<Rollup>) {
    (points(store, test).await, rollups(store, test, Span::Hour).await, rollups(store, test, Span::Day).await)
}

/// Counts and extremes are equal; mean and squared deviations up to the rounding that the order of merges leaves.
#[track_caller]
fn assert_close(found: &[Rollup], expect: &[Rollup]) {
    let exact = |all: &[Rollup]| {
        all.iter().map(|r| (r.start, r.runs, r.failures, r.min_us, r.max_us)).collect::<Vec<_>>()
    };
    assert_eq!(exact(found), exact(expect));
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0);
    for (found, expect) in found.iter().zip(expect) {
        assert!(
            close(found.mean_us, expect.mean_us) && close(found.m2, expect.m2),
            "{found:?} is not {expect:?}"
        );
    }
}
