//! How points and roll-ups are packed, shared by every adapter so that bytes can be copied between
//! them. Pure: no clock, no I/O. Never change a layout in place: readers of old data would misread it.
//!
//! | what | bytes, all little-endian |
//! | --- | --- |
//! | point (16) | microseconds since the UTC midnight of its day `u48`, wall `u32`, outcome `u8`, concurrency `u8`, worker `u16`, run `u16` |
//! | roll-up (32) | runs `u32`, failures `u32`, mean `f64`, m2 `f64`, min `u32`, max `u32` |
//! | field of a chunk (18) | job id (16 bytes), chunk `u16` **big-endian**, so that fields sort by job and number |
//!
//! A point's day is part of its key, which is why a `u48` holds microseconds: since the epoch they
//! would run out after nine years, since midnight they cannot.

use super::{Chunk, Point, PointOutcome, Rollup, SampleError, Span};
use crate::UnixMicros;
use crate::ids::{JobId, TestId};
use sha2::{Digest as _, Sha256};
use std::ops::Range;

/// Bytes of a packed point.
pub const POINT_BYTES: usize = 16;
/// Bytes of a packed roll-up.
pub const ROLLUP_BYTES: usize = 32;

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// First day that no sample may have (2100-01-01): beyond it a clock is wrong, and reads of
/// "everything" stay bounded.
pub const END_OF_DAYS: i64 = 47_482;

/// The UTC day of a moment, counted from the Unix epoch.
pub fn day_of(at: UnixMicros) -> i64 {
    at.div_euclid(DAY_MICROS)
}

/// The midnight that begins a day.
pub fn day_start(day: i64) -> UnixMicros {
    day * DAY_MICROS
}

/// The UTC hour of a moment, 0 to 23.
pub fn hour_of_day(at: UnixMicros) -> u8 {
    u8::try_from(at.rem_euclid(DAY_MICROS) / HOUR_MICROS).expect("a day has 24 hours")
}

/// The days that a read from `from` (inclusive) to `to` (exclusive) must look at.
pub fn days(from: UnixMicros, to: UnixMicros) -> Range<i64> {
    let start = day_of(from).clamp(0, END_OF_DAYS);
    let end = day_of(to.saturating_sub(1)).saturating_add(1).clamp(0, END_OF_DAYS);
    start..end.max(start)
}

impl Span {
    /// Its length in microseconds.
    pub fn micros(self) -> i64 {
        match self {
            Self::Hour => HOUR_MICROS,
            Self::Day => DAY_MICROS,
        }
    }
}

/// The identity of a test's time series: 64 bits of a hash of project and test. Names are kept in
/// the relational store.
pub fn series(project: &str, test: &TestId) -> [u8; 8] {
    let mut hasher = Sha256::new();
    hasher.update((project.len() as u64).to_le_bytes());
    hasher.update(project);
    hasher.update(test.as_str());
    let digest = hasher.finalize();
    digest[..8].try_into().expect("a SHA-256 digest has 32 bytes")
}

/// The points of one test in one job as chunks, one per UTC day, oldest day first, numbered from 0.
///
/// Chunks of a redelivered job have the same keys and are dropped as duplicates; only where the
/// second run falls on another UTC day than the first are both kept, which history can bear.
pub fn chunks(project: &str, test: &TestId, job: JobId, points: &[Point]) -> Vec<Chunk> {
    let mut sorted = points.to_vec();
    sort_points(&mut sorted);
    sorted
        .chunk_by(|a, b| day_of(a.at) == day_of(b.at))
        .zip(0u16..)
        .map(|(points, chunk)| Chunk {
            project: project.to_owned(),
            test: test.clone(),
            job,
            chunk,
            points: points.to_vec(),
        })
        .collect()
}

/// Oldest first; points of the same microsecond in an order that does not depend on arrival.
pub fn sort_points(points: &mut [Point]) {
    points.sort_by_key(|p| (p.at, p.worker, p.run, p.wall_us, outcome_code(p.outcome), p.concurrency));
}

/// A chunk made ready for storing: everything that an adapter writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The time series.
    pub series: [u8; 8],
    /// The UTC day of all points, counted from the epoch.
    pub day: i64,
    /// Job and chunk number, the chunk's name within series and day.
    pub field: [u8; 18],
    /// The packed points.
    pub points: Vec<u8>,
    /// What the chunk adds to its hours; hours without a pass or failure are absent.
    pub hours: Vec<Rollup>,
    /// What it adds to its day; none if every point is a skip.
    pub total: Option<Rollup>,
}

/// Packs a chunk and computes its roll-ups. Refuses an empty chunk, one whose points are of
/// several days and one from before 1970 or after 2099.
pub fn prepare(chunk: &Chunk) -> Result<Prepared, SampleError> {
    let refused = |why: &str| {
        SampleError::Refused(format!("chunk {} of job {} of `{}`: {why}", chunk.chunk, chunk.job, chunk.test))
    };
    let mut points = chunk.points.clone();
    sort_points(&mut points);
    let Some(first) = points.first() else { return Err(refused("it has no points")) };
    let day = day_of(first.at);
    if points.iter().any(|point| day_of(point.at) != day) {
        return Err(refused("its points are of several UTC days"));
    }
    if !(0..END_OF_DAYS).contains(&day) {
        return Err(refused("its points are not between 1970 and 2099"));
    }
    let mut field = [0; 18];
    field[..16].copy_from_slice(chunk.job.0.as_bytes());
    field[16..].copy_from_slice(&chunk.chunk.to_be_bytes());
    Ok(Prepared {
        series: series(&chunk.project, &chunk.test),
        day,
        field,
        points: pack_points(day, &points),
        hours: super::rollup::of_points(Span::Hour, &points),
        total: super::rollup::of_points(Span::Day, &points).pop(),
    })
}

fn outcome_code(outcome: PointOutcome) -> u8 {
    match outcome {
        PointOutcome::Pass => 0,
        PointOutcome::Fail => 1,
        PointOutcome::Skip => 2,
    }
}

/// Packs points of one day, in the order given.
fn pack_points(day: i64, points: &[Point]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(points.len() * POINT_BYTES);
    for point in points {
        let offset = point.at - day * DAY_MICROS;
        packed.extend_from_slice(&offset.to_le_bytes()[..6]);
        packed.extend_from_slice(&point.wall_us.to_le_bytes());
        packed.extend_from_slice(&[outcome_code(point.outcome), point.concurrency]);
        packed.extend_from_slice(&point.worker.to_le_bytes());
        packed.extend_from_slice(&point.run.to_le_bytes());
    }
    packed
}

/// The points of a packed chunk of `day`.
pub fn unpack_points(day: i64, packed: &[u8]) -> Result<Vec<Point>, SampleError> {
    let (records, rest) = packed.as_chunks::<POINT_BYTES>();
    if !rest.is_empty() {
        return Err(SampleError::Damaged(format!("a chunk of {} bytes is not whole points", packed.len())));
    }
    records.iter().map(|record| unpack_point(day, record)).collect()
}

fn unpack_point(day: i64, record: &[u8; POINT_BYTES]) -> Result<Point, SampleError> {
    let [t0, t1, t2, t3, t4, t5, w0, w1, w2, w3, outcome, concurrency, k0, k1, r0, r1] = *record;
    let offset = i64::from_le_bytes([t0, t1, t2, t3, t4, t5, 0, 0]);
    if offset >= DAY_MICROS {
        return Err(SampleError::Damaged(format!("a point lies {offset} us after its midnight")));
    }
    Ok(Point {
        at: day * DAY_MICROS + offset,
        wall_us: u32::from_le_bytes([w0, w1, w2, w3]),
        outcome: match outcome {
            0 => PointOutcome::Pass,
            1 => PointOutcome::Fail,
            2 => PointOutcome::Skip,
            other => return Err(SampleError::Damaged(format!("a point has the unknown outcome {other}"))),
        },
        concurrency,
        worker: u16::from_le_bytes([k0, k1]),
        run: u16::from_le_bytes([r0, r1]),
    })
}

/// Packs a roll-up; its start is part of its key and not of its bytes.
pub fn pack_rollup(rollup: &Rollup) -> [u8; ROLLUP_BYTES] {
    let mut packed = [0; ROLLUP_BYTES];
    packed[0..4].copy_from_slice(&rollup.runs.to_le_bytes());
    packed[4..8].copy_from_slice(&rollup.failures.to_le_bytes());
    packed[8..16].copy_from_slice(&rollup.mean_us.to_le_bytes());
    packed[16..24].copy_from_slice(&rollup.m2.to_le_bytes());
    packed[24..28].copy_from_slice(&rollup.min_us.to_le_bytes());
    packed[28..32].copy_from_slice(&rollup.max_us.to_le_bytes());
    packed
}

/// The roll-up of the span that starts at `start`.
pub fn unpack_rollup(start: UnixMicros, packed: &[u8]) -> Result<Rollup, SampleError> {
    let packed: &[u8; ROLLUP_BYTES] = packed
        .try_into()
        .map_err(|_| SampleError::Damaged(format!("a roll-up of {} bytes instead of 32", packed.len())))?;
    let u32_at = |at: usize| u32::from_le_bytes(packed[at..at + 4].try_into().expect("four bytes in range"));
    let f64_at = |at: usize| f64::from_le_bytes(packed[at..at + 8].try_into().expect("eight bytes in range"));
    let rollup = Rollup {
        start,
        runs: u32_at(0),
        failures: u32_at(4),
        mean_us: f64_at(8),
        m2: f64_at(16),
        min_us: u32_at(24),
        max_us: u32_at(28),
    };
    let sane = rollup.runs > 0
        && rollup.failures <= rollup.runs
        && rollup.mean_us.is_finite()
        && rollup.m2.is_finite()
        && rollup.min_us <= rollup.max_us;
    if sane { Ok(rollup) } else { Err(SampleError::Damaged(format!("an impossible roll-up: {rollup:?}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    /// Points on up to three days around the turn of a year.
    fn any_points() -> impl Strategy<Value = Vec<Point>> {
        let outcome =
            prop_oneof![Just(PointOutcome::Pass), Just(PointOutcome::Fail), Just(PointOutcome::Skip)];
        let point = (0..3 * DAY_MICROS, any::<u32>(), outcome, any::<u8>(), any::<u16>(), any::<u16>())
            .prop_map(|(after, wall_us, outcome, concurrency, worker, run)| Point {
                at: day_start(20_453) + after,
                wall_us,
                outcome,
                concurrency,
                worker,
                run,
            });
        proptest::collection::vec(point, 0..60)
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(points in any_points()) {
            let job = JobId(Uuid::nil());
            let mut expected = points.clone();
            sort_points(&mut expected);
            let mut found = Vec::new();
            for (number, chunk) in chunks("p", &TestId::from("t"), job, &points).iter().enumerate() {
                prop_assert_eq!(usize::from(chunk.chunk), number);
                let prepared = prepare(chunk).unwrap();
                prop_assert_eq!(prepared.points.len(), chunk.points.len() * POINT_BYTES);
                found.extend(unpack_points(prepared.day, &prepared.points).unwrap());
            }
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn rollups_survive_packing(points in any_points()) {
            let mut points = points;
            sort_points(&mut points);
            for rollup in super::super::rollup::of_points(Span::Hour, &points) {
                prop_assert_eq!(unpack_rollup(rollup.start, &pack_rollup(&rollup)).unwrap(), rollup);
            }
        }

        #[test]
        fn days_of_a_range_hold_every_moment_of_it(from in 0i64..100 * DAY_MICROS, length in 0i64..5 * DAY_MICROS) {
            let range = days(from, from + length);
            if length > 0 {
                prop_assert!(range.contains(&day_of(from)) && range.contains(&day_of(from + length - 1)));
                prop_assert_eq!(range.end - 1, day_of(from + length - 1));
            } else {
                prop_assert!(range.end - range.start <= 1);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..70)) {
            let _ = unpack_points(1, &bytes);
            let _ = unpack_rollup(0, &bytes);
        }
    }

    #[test]
    fn the_layout_is_frozen() {
        let point = Point {
            at: day_start(20_000) + 0x0102_0304,
            wall_us: 0x1122_3344,
            outcome: PointOutcome::Fail,
            concurrency: 7,
            worker: 0xAABB,
            run: 0xCCDD,
        };
        let chunk = Chunk {
            project: "p".into(),
            test: TestId::from("t"),
            job: JobId(Uuid::from_u128(0x0102)),
            chunk: 3,
            points: vec![point],
        };
        let prepared = prepare(&chunk).unwrap();
        assert_eq!(hex::encode(&prepared.points), "04030201000044332211".to_owned() + "0107bbaaddcc");
        assert_eq!(hex::encode(prepared.field), "000000000000000000000000000001020003");
        assert_eq!(hex::encode(series("pröjekt", &TestId::from("t::ü"))), "0d41c54db9a2f7f5");
        let rollup = Rollup { start: 0, runs: 2, failures: 1, mean_us: 1.5, m2: 0.5, min_us: 1, max_us: 2 };
        assert_eq!(
            hex::encode(pack_rollup(&rollup)),
            "0200000001000000000000000000f83f000000000000e03f0100000002000000"
        );
    }

    #[test]
    fn series_do_not_mix_project_and_test() {
        assert_ne!(series("a", &TestId::from("bc")), series("ab", &TestId::from("c")));
    }

    #[test]
    fn everything_is_a_bounded_range() {
        assert_eq!(days(i64::MIN, i64::MAX), 0..END_OF_DAYS);
        assert_eq!(days(5, 5).count().min(1), days(5, 5).count());
        assert!(days(i64::MAX, i64::MIN).is_empty());
    }

    #[test]
    fn chunks_that_cannot_be_stored_are_refused() {
        let point =
            |at| Point { at, wall_us: 1, outcome: PointOutcome::Pass, concurrency: 1, worker: 0, run: 0 };
        let check = |points: Vec<Point>| {
            let chunk =
                Chunk { project: "p".into(), test: "t".into(), job: JobId(Uuid::nil()), chunk: 0, points };
            assert!(matches!(prepare(&chunk), Err(SampleError::Refused(_))));
        };
        check(vec![]);
        check(vec![point(0), point(DAY_MICROS)]);
        check(vec![point(-1)]);
        check(vec![point(day_start(END_OF_DAYS))]);
    }

    #[test]
    fn damage_is_named() {
        let damaged = |packed: &[u8]| matches!(unpack_points(0, packed), Err(SampleError::Damaged(_)));
        assert!(damaged(&[0; 15]));
        let mut unknown = [0; 16];
        unknown[10] = 9;
        assert!(damaged(&unknown));
        assert!(damaged(&[255; 16]));
        assert!(matches!(unpack_rollup(0, &[0; 32]), Err(SampleError::Damaged(_))));
    }
}
