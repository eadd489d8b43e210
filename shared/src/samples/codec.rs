//! How points are packed, shared by every adapter so that bytes can be copied between them. Pure: no
//! clock, no I/O. A layout never changes in place: readers of old data would misread it.
//!
//! Everything is little-endian. A day's points of one test are a *pack*: the layout's number (`2`), then
//! chunks, each a head of 13 bytes and its points of 10 to 22:
//!
//! | what | bytes |
//! | --- | --- |
//! | chunk | treatment class `u8`, points `u8` (1 to 255), name (6, a hash of job and number), run (5, a hash) |
//! | point | moment `u40`: bit 0 to 36 microseconds since the UTC midnight of its day, bit 37 whether phases follow, bit 38 and 39 the outcome (pass, fail, skip, fail with a signature); wall `u32`, concurrency `u8`, worker `u16`, attempt `u16`; phases: set-up and tear-down `u16` each, see [`pack_micros`]; signature `u64` |
//!
//! A day is part of a pack's key, and a chunk is found in a pack by its name: that is the record of the
//! append. Hashes this short meet by chance once in 10^9 keys of 1,000 chunks; what they then cost is a
//! chunk of history. Layout 1 (until version 0.1) had one chunk per value and 16 bytes per point, without
//! run, class, phases and signature: [`unpack_v1`].

use super::{Chunk, Phases, Point, PointOutcome, RunTag, SampleError, StoredPoint};
use crate::UnixMicros;
use crate::ids::{JobId, TestId};
use crate::run::TreatmentClass;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::ops::Range;
use uuid::Uuid;

/// The first byte of a pack.
pub const LAYOUT: u8 = 2;
/// Bytes of a chunk's name within its pack.
pub const NAME_BYTES: usize = 6;
/// Most points of a chunk.
pub const MOST_POINTS: usize = 255;

const HEAD_BYTES: usize = 2 + NAME_BYTES + 5;
const V1_POINT_BYTES: usize = 16;
const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;
const MOMENT_BITS: u64 = (1 << 37) - 1;
const HAS_PHASES: u64 = 1 << 37;

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

/// How points name a run.
pub fn run_tag(run: Uuid) -> RunTag {
    let digest = Sha256::digest(run.as_bytes());
    RunTag(digest[..5].try_into().expect("a SHA-256 digest has 32 bytes"))
}

fn name_of(job: JobId, chunk: u16) -> [u8; NAME_BYTES] {
    let mut hasher = Sha256::new();
    hasher.update(job.0.as_bytes());
    hasher.update(chunk.to_le_bytes());
    let digest = hasher.finalize();
    digest[..NAME_BYTES].try_into().expect("a SHA-256 digest has 32 bytes")
}

/// The points of one test in one job of `run` as chunks: one per treatment class and UTC day, more where
/// there are very many, numbered so that a redelivered job gives the same numbers.
///
/// Chunks of a redelivered job have the same names and are dropped as duplicates; only where the second
/// run falls on another UTC day than the first are both kept, which history can bear.
pub fn chunks(
    project: &str,
    test: &TestId,
    run: Uuid,
    job: JobId,
    points: &[(TreatmentClass, Point)],
) -> Vec<Chunk> {
    let mut classes: BTreeMap<u8, Vec<Point>> = BTreeMap::new();
    for (class, point) in points {
        classes.entry(class.code()).or_default().push(*point);
    }
    let mut chunks = Vec::new();
    for (code, mut points) in classes {
        sort_points(&mut points);
        let parts = points
            .chunk_by(|a, b| day_of(a.at) == day_of(b.at))
            .flat_map(|points| points.chunks(MOST_POINTS))
            .zip(0u16..);
        for (points, part) in parts {
            chunks.push(Chunk {
                project: project.to_owned(),
                test: test.clone(),
                run,
                class: TreatmentClass::of_code(code),
                job,
                chunk: u16::from(code) << 12 | part & 0xfff,
                points: points.to_vec(),
            });
        }
    }
    chunks
}

/// Oldest first; points of the same microsecond in an order that does not depend on arrival.
pub fn sort_points(points: &mut [Point]) {
    points.sort_by_key(order_of);
}

/// As [`sort_points`], for points of several runs.
pub fn sort_stored(points: &mut [StoredPoint]) {
    points.sort_by_key(|stored| (order_of(&stored.point), stored.run, stored.class));
}

fn order_of(p: &Point) -> (UnixMicros, u16, u16, u32, u64, u8, Option<Phases>, Option<u64>) {
    (p.at, p.worker, p.attempt, p.wall_us, outcome_code(p), p.concurrency, p.phases, p.signature)
}

/// A chunk made ready for storing: everything that an adapter writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    /// The time series.
    pub series: [u8; 8],
    /// The UTC day of all points, counted from the epoch.
    pub day: i64,
    /// The chunk's name within series and day.
    pub name: [u8; NAME_BYTES],
    /// The packed chunk, without the layout's number.
    pub packed: Vec<u8>,
}

/// Packs a chunk. Refuses an empty one, one of more than [`MOST_POINTS`] points, one whose points are of
/// several days and one from before 1970 or after 2099.
pub fn prepare(chunk: &Chunk) -> Result<Prepared, SampleError> {
    let refused = |why: &str| {
        SampleError::Refused(format!("chunk {} of job {} of `{}`: {why}", chunk.chunk, chunk.job, chunk.test))
    };
    let mut points = chunk.points.clone();
    sort_points(&mut points);
    let Some(first) = points.first() else { return Err(refused("it has no points")) };
    let day = day_of(first.at);
    let count = u8::try_from(points.len()).map_err(|_| refused("it has more than 255 points"))?;
    if points.iter().any(|point| day_of(point.at) != day) {
        return Err(refused("its points are of several UTC days"));
    }
    if !(0..END_OF_DAYS).contains(&day) {
        return Err(refused("its points are not between 1970 and 2099"));
    }
    let name = name_of(chunk.job, chunk.chunk);
    let mut packed = vec![chunk.class.code(), count];
    packed.extend_from_slice(&name);
    packed.extend_from_slice(&run_tag(chunk.run).0);
    for point in &points {
        pack_point(day, point, &mut packed);
    }
    Ok(Prepared { series: series(&chunk.project, &chunk.test), day, name, packed })
}

fn outcome_code(point: &Point) -> u64 {
    match (point.outcome, point.signature) {
        (PointOutcome::Pass, _) => 0,
        (PointOutcome::Fail, None) => 1,
        (PointOutcome::Skip, _) => 2,
        (PointOutcome::Fail, Some(_)) => 3,
    }
}

fn pack_point(day: i64, point: &Point, packed: &mut Vec<u8>) {
    let offset = (point.at - day * DAY_MICROS).cast_unsigned();
    let phases = if point.phases.is_some() { HAS_PHASES } else { 0 };
    let head = offset | phases | outcome_code(point) << 38;
    packed.extend_from_slice(&head.to_le_bytes()[..5]);
    packed.extend_from_slice(&point.wall_us.to_le_bytes());
    packed.push(point.concurrency);
    packed.extend_from_slice(&point.worker.to_le_bytes());
    packed.extend_from_slice(&point.attempt.to_le_bytes());
    if let Some(phases) = point.phases {
        packed.extend_from_slice(&pack_micros(phases.setup_us).to_le_bytes());
        packed.extend_from_slice(&pack_micros(phases.teardown_us).to_le_bytes());
    }
    if let (PointOutcome::Fail, Some(signature)) = (point.outcome, point.signature) {
        packed.extend_from_slice(&signature.to_le_bytes());
    }
}

/// A duration in sixteen bits: 5 of exponent and 11 of fraction, exact below 4,096 us, to 0.05 % above,
/// up to 71 minutes.
pub fn pack_micros(micros: u32) -> u16 {
    let shift = (32 - micros.leading_zeros()).saturating_sub(12);
    // Below 2^12 the value itself; above, its first 12 bits, of which the first is known to be set.
    match shift {
        0 => micros as u16,
        shift => (4_096 + ((shift - 1) << 11) + ((micros >> shift) - 2_048)) as u16,
    }
}

/// The duration that [`pack_micros`] packed, rounded down.
pub fn unpack_micros(packed: u16) -> u32 {
    match packed.checked_sub(4_096) {
        None => u32::from(packed),
        Some(rest) => {
            let shift = u32::from(rest >> 11) + 1;
            u32::try_from((u64::from(rest & 0x7ff) + 2_048) << shift).unwrap_or(u32::MAX)
        }
    }
}

/// The points of a pack of `day`, in the order they were appended.
pub fn unpack(day: i64, pack: &[u8]) -> Result<Vec<StoredPoint>, SampleError> {
    match pack.split_first() {
        None => Ok(Vec::new()),
        Some((&LAYOUT, chunks)) => unpack_chunks(day, chunks),
        Some((layout, _)) => Err(SampleError::Damaged(format!("a pack of the unknown layout {layout}"))),
    }
}

/// The points of packed chunks of `day`.
pub fn unpack_chunks(day: i64, mut rest: &[u8]) -> Result<Vec<StoredPoint>, SampleError> {
    let mut points = Vec::new();
    while !rest.is_empty() {
        let Some((head, after)) = rest.split_first_chunk::<HEAD_BYTES>() else {
            return Err(SampleError::Damaged(format!("{} bytes are no chunk", rest.len())));
        };
        let class = TreatmentClass::of_code(head[0]);
        let run = Some(RunTag(head[2 + NAME_BYTES..].try_into().expect("a head ends with five bytes")));
        rest = after;
        for _ in 0..head[1] {
            let (point, after) = unpack_point(day, rest)?;
            points.push(StoredPoint { point, run, class });
            rest = after;
        }
    }
    Ok(points)
}

fn unpack_point(day: i64, rest: &[u8]) -> Result<(Point, &[u8]), SampleError> {
    let cut = || SampleError::Damaged("a point is cut off".to_owned());
    let (fixed, mut rest) = rest.split_first_chunk::<14>().ok_or_else(cut)?;
    let [h0, h1, h2, h3, h4, w0, w1, w2, w3, concurrency, k0, k1, a0, a1] = *fixed;
    let head = u64::from_le_bytes([h0, h1, h2, h3, h4, 0, 0, 0]);
    let offset = (head & MOMENT_BITS).cast_signed();
    if offset >= DAY_MICROS {
        return Err(SampleError::Damaged(format!("a point lies {offset} us after its midnight")));
    }
    let mut phases = None;
    if head & HAS_PHASES != 0 {
        let ([s0, s1, t0, t1], after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        phases = Some(Phases {
            setup_us: unpack_micros(u16::from_le_bytes([*s0, *s1])),
            teardown_us: unpack_micros(u16::from_le_bytes([*t0, *t1])),
        });
        rest = after;
    }
    let (outcome, signature) = match head >> 38 {
        0 => (PointOutcome::Pass, None),
        1 => (PointOutcome::Fail, None),
        2 => (PointOutcome::Skip, None),
        _ => {
            let (signature, after) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
            rest = after;
            (PointOutcome::Fail, Some(u64::from_le_bytes(*signature)))
        }
    };
    let point = Point {
        at: day * DAY_MICROS + offset,
        wall_us: u32::from_le_bytes([w0, w1, w2, w3]),
        outcome,
        concurrency,
        worker: u16::from_le_bytes([k0, k1]),
        attempt: u16::from_le_bytes([a0, a1]),
        phases,
        signature,
    };
    Ok((point, rest))
}

/// The points of a chunk of layout 1.
pub fn unpack_v1(day: i64, packed: &[u8]) -> Result<Vec<StoredPoint>, SampleError> {
    let (records, rest) = packed.as_chunks::<V1_POINT_BYTES>();
    if !rest.is_empty() {
        return Err(SampleError::Damaged(format!("a chunk of {} bytes is not whole points", packed.len())));
    }
    records.iter().map(|record| unpack_v1_point(day, record)).collect()
}

fn unpack_v1_point(day: i64, record: &[u8; V1_POINT_BYTES]) -> Result<StoredPoint, SampleError> {
    let [t0, t1, t2, t3, t4, t5, w0, w1, w2, w3, outcome, concurrency, k0, k1, a0, a1] = *record;
    let offset = i64::from_le_bytes([t0, t1, t2, t3, t4, t5, 0, 0]);
    if offset >= DAY_MICROS {
        return Err(SampleError::Damaged(format!("a point lies {offset} us after its midnight")));
    }
    let point = Point {
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
        attempt: u16::from_le_bytes([a0, a1]),
        phases: None,
        signature: None,
    };
    Ok(StoredPoint { point, run: None, class: TreatmentClass::Unknown })
}

#[cfg(test)]
mod tests;
