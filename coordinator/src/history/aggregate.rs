//! Sums over points that can be added up: an hour, a day and a year are sums of their parts, in whatever
//! order they are added. Pure.
//!
//! Counts, sums and sums of squares are whole numbers, so that no order of additions shows. Durations
//! are kept one by one while they are few, and as a DDSketch (Masson, Rim and Lee 2019; relative error 1 %)
//! from then on; a sketch depends only on which values went in.

use flakefarm_shared::samples::{PointOutcome, StoredPoint, codec};
use sketches_ddsketch::{Config, DDSketch};
use std::collections::BTreeMap;

/// Durations kept one by one.
const FEW: usize = 12;
/// The first byte of a pack.
const LAYOUT: u8 = 1;

/// What some points of one test and treatment class come to.
#[derive(Debug, Clone, Default)]
pub struct Aggregate {
    /// Passes.
    pub passes: u64,
    /// Failures.
    pub failures: u64,
    /// Skips.
    pub skips: u64,
    /// Passes and failures whose duration is known.
    pub timed: u64,
    /// The sum of their durations, in microseconds.
    pub sum_us: u128,
    /// The sum of the squares of their durations.
    pub sum_squares: u128,
    /// Failures by signature; those without one are left out.
    pub signatures: BTreeMap<u64, u64>,
    durations: Durations,
}

#[derive(Clone)]
enum Durations {
    /// Sorted.
    Few(Vec<u32>),
    Many(Box<DDSketch>),
}

impl std::fmt::Debug for Durations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Durations::Few(values) => values.fmt(f),
            Durations::Many(sketch) => write!(f, "{} durations", sketch.count()),
        }
    }
}

impl Default for Durations {
    fn default() -> Self {
        Durations::Few(Vec::new())
    }
}

impl PartialEq for Aggregate {
    /// By what is kept of them.
    fn eq(&self, other: &Self) -> bool {
        let bytes = |aggregate: &Self| {
            let mut bytes = Vec::new();
            aggregate.pack(&mut bytes);
            bytes
        };
        bytes(self) == bytes(other)
    }
}

impl Aggregate {
    /// Of points that are in hand.
    pub fn of<'a>(points: impl IntoIterator<Item = &'a StoredPoint>) -> Self {
        let mut aggregate = Self::default();
        for stored in points {
            aggregate.add(stored);
        }
        aggregate
    }

    fn add(&mut self, stored: &StoredPoint) {
        let point = &stored.point;
        match point.outcome {
            PointOutcome::Pass => self.passes += 1,
            PointOutcome::Fail => self.failures += 1,
            PointOutcome::Skip => {
                self.skips += 1;
                return;
            }
        }
        if let (PointOutcome::Fail, Some(signature)) = (point.outcome, point.signature) {
            *self.signatures.entry(signature).or_default() += 1;
        }
        // Zero is a duration that nobody told.
        if point.wall_us > 0 {
            self.timed += 1;
            self.sum_us += u128::from(point.wall_us);
            self.sum_squares += u128::from(point.wall_us) * u128::from(point.wall_us);
            self.durations.add(point.wall_us);
        }
    }

    /// Adds what another one is the sum of.
    pub fn merge(&mut self, other: &Self) {
        self.passes += other.passes;
        self.failures += other.failures;
        self.skips += other.skips;
        self.timed += other.timed;
        self.sum_us += other.sum_us;
        self.sum_squares += other.sum_squares;
        for (signature, count) in &other.signatures {
            *self.signatures.entry(*signature).or_default() += count;
        }
        self.durations.merge(&other.durations);
    }

    /// Passes and failures.
    pub fn runs(&self) -> u64 {
        self.passes + self.failures
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.passes + self.failures + self.skips == 0
    }

    /// The share of failures; none without runs.
    pub fn failure_rate(&self) -> Option<f64> {
        (self.runs() > 0).then(|| self.failures as f64 / self.runs() as f64)
    }

    /// The mean duration in microseconds; none if none is known.
    pub fn mean_us(&self) -> Option<f64> {
        (self.timed > 0).then(|| self.sum_us as f64 / self.timed as f64)
    }

    /// The duration in microseconds that a share `quantile` of runs does not exceed, to 1 %; none if none is
    /// known.
    pub fn quantile_us(&self, quantile: f64) -> Option<f64> {
        match &self.durations {
            Durations::Few(values) => {
                let last = values.len().checked_sub(1)?;
                let place = (quantile.clamp(0.0, 1.0) * last as f64).round() as usize;
                Some(f64::from(values[place]))
            }
            Durations::Many(sketch) => sketch.quantile(quantile.clamp(0.0, 1.0)).ok().flatten(),
        }
    }

    /// Appends its bytes: counts as variable-length numbers, then signatures, then durations.
    fn pack(&self, bytes: &mut Vec<u8>) {
        for number in [self.passes, self.failures, self.skips, self.timed] {
            put(bytes, u128::from(number));
        }
        put(bytes, self.sum_us);
        put(bytes, self.sum_squares);
        put(bytes, self.signatures.len() as u128);
        for (signature, count) in &self.signatures {
            bytes.extend_from_slice(&signature.to_le_bytes());
            put(bytes, u128::from(*count));
        }
        match &self.durations {
            Durations::Few(values) => {
                put(bytes, values.len() as u128);
                values.iter().for_each(|value| put(bytes, u128::from(*value)));
            }
            Durations::Many(sketch) => {
                let packed = sketch.to_java_bytes();
                put(bytes, (FEW + 1 + packed.len()) as u128);
                bytes.extend_from_slice(&packed);
            }
        }
    }

    fn unpack(rest: &mut &[u8]) -> Option<Self> {
        let count = |rest: &mut &[u8]| u64::try_from(take(rest)?).ok();
        let mut aggregate = Self {
            passes: count(rest)?,
            failures: count(rest)?,
            skips: count(rest)?,
            timed: count(rest)?,
            sum_us: take(rest)?,
            sum_squares: take(rest)?,
            ..Self::default()
        };
        for _ in 0..count(rest)? {
            let (signature, after) = rest.split_first_chunk::<8>()?;
            *rest = after;
            aggregate.signatures.insert(u64::from_le_bytes(*signature), count(rest)?);
        }
        let length = usize::try_from(take(rest)?).ok()?;
        aggregate.durations = match length.checked_sub(FEW + 1) {
            None => {
                let mut values = Vec::with_capacity(length);
                for _ in 0..length {
                    values.push(u32::try_from(take(rest)?).ok()?);
                }
                Durations::Few(values)
            }
            Some(length) => {
                let (packed, after) = rest.split_at_checked(length)?;
                *rest = after;
                Durations::Many(Box::new(DDSketch::from_java_bytes(packed).ok()?))
            }
        };
        Some(aggregate)
    }
}

impl Durations {
    fn add(&mut self, micros: u32) {
        match self {
            Durations::Few(values) if values.len() < FEW => {
                let place = values.partition_point(|value| *value <= micros);
                values.insert(place, micros);
            }
            Durations::Few(_) => {
                self.make_many().add(f64::from(micros));
            }
            Durations::Many(sketch) => sketch.add(f64::from(micros)),
        }
    }

    fn merge(&mut self, other: &Self) {
        match other {
            Durations::Few(values) => values.iter().for_each(|value| self.add(*value)),
            Durations::Many(sketch) => {
                self.make_many().merge(sketch).expect("all sketches have the same configuration");
            }
        }
    }

    /// The sketch of what is there.
    fn make_many(&mut self) -> &mut DDSketch {
        if let Durations::Few(values) = self {
            let mut sketch = DDSketch::new(Config::defaults());
            values.iter().for_each(|value| sketch.add(f64::from(*value)));
            *self = Durations::Many(Box::new(sketch));
        }
        match self {
            Durations::Many(sketch) => sketch,
            Durations::Few(_) => unreachable!("it was made a sketch"),
        }
    }
}

/// Aggregates by place (the hour of a day, the day of a month), packed. Empty ones are left out.
pub fn pack(aggregates: &BTreeMap<u8, Aggregate>) -> Vec<u8> {
    let mut bytes = vec![LAYOUT];
    for (place, aggregate) in aggregates.iter().filter(|(_, aggregate)| !aggregate.is_empty()) {
        bytes.push(*place);
        aggregate.pack(&mut bytes);
    }
    bytes
}

/// What [`pack`] packed; none of bytes that it did not make.
pub fn unpack(bytes: &[u8]) -> Option<BTreeMap<u8, Aggregate>> {
    let (&LAYOUT, mut rest) = bytes.split_first()? else { return None };
    let mut aggregates = BTreeMap::new();
    while let Some((place, after)) = rest.split_first() {
        rest = after;
        aggregates.insert(*place, Aggregate::unpack(&mut rest)?);
    }
    Some(aggregates)
}

/// The hours of a day's points.
pub fn hours<'a>(points: impl IntoIterator<Item = &'a StoredPoint>) -> BTreeMap<u8, Aggregate> {
    let mut hours: BTreeMap<u8, Aggregate> = BTreeMap::new();
    for stored in points {
        hours.entry(codec::hour_of_day(stored.point.at)).or_default().add(stored);
    }
    hours
}

/// The sum of some aggregates.
pub fn sum<'a>(aggregates: impl IntoIterator<Item = &'a Aggregate>) -> Aggregate {
    let mut sum = Aggregate::default();
    for aggregate in aggregates {
        sum.merge(aggregate);
    }
    sum
}

/// Seven bits a byte, the lowest first.
pub(super) fn put(bytes: &mut Vec<u8>, mut number: u128) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

pub(super) fn take(rest: &mut &[u8]) -> Option<u128> {
    let mut number = 0u128;
    for shift in (0..126).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use flakefarm_shared::TreatmentClass;
    use flakefarm_shared::samples::Point;
    use proptest::prelude::*;

    fn any_points() -> impl Strategy<Value = Vec<StoredPoint>> {
        let outcome =
            prop_oneof![Just(PointOutcome::Pass), Just(PointOutcome::Fail), Just(PointOutcome::Skip)];
        let wall = prop_oneof![Just(0u32), 1..100u32, any::<u32>()];
        let point = (0..86_400_000_000i64, wall, outcome, proptest::option::of(0..3u64)).prop_map(
            |(at, wall_us, outcome, signature)| StoredPoint {
                point: Point { outcome, signature, ..Point::passed(at, wall_us) },
                run: None,
                class: TreatmentClass::Plain,
            },
        );
        proptest::collection::vec(point, 0..80)
    }

    proptest! {
        /// In whatever parts and order points are added up, the sum is the same, and is kept.
        #[test]
        fn order_and_grouping_do_not_matter(
            points in any_points(),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
            rotation in any::<proptest::sample::Index>(),
        ) {
            let whole = Aggregate::of(&points);
            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(points.len() + 1)).collect();
            edges.extend([0, points.len()]);
            edges.sort_unstable();
            let mut parts: Vec<Aggregate> =
                edges.windows(2).map(|edge| Aggregate::of(&points[edge[0]..edge[1]])).collect();
            let turn = rotation.index(parts.len());
            parts.rotate_left(turn);
            prop_assert_eq!(&sum(&parts), &whole);
            parts.reverse();
            prop_assert_eq!(&sum(&parts), &whole);
            let hours = hours(&points);
            prop_assert_eq!(&sum(hours.values()), &whole);
            let kept = unpack(&pack(&hours)).unwrap();
            prop_assert_eq!(&kept, &hours);
            prop_assert_eq!(&sum(kept.values()), &whole);
        }

        #[test]
        fn quantiles_are_right_to_a_per_cent(walls in proptest::collection::vec(1..4_000_000_000u32, 1..200)) {
            let points: Vec<StoredPoint> = walls
                .iter()
                .map(|wall| StoredPoint { point: Point::passed(0, *wall), run: None, class: TreatmentClass::Plain })
                .collect();
            let aggregate = Aggregate::of(&points);
            let mut sorted = walls.clone();
            sorted.sort_unstable();
            for quantile in [0.0, 0.5, 0.9, 1.0] {
                let found = aggregate.quantile_us(quantile).unwrap();
                let place = quantile * (sorted.len() - 1) as f64;
                let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
                prop_assert!(found >= f64::from(low) * 0.98 && found <= f64::from(high) * 1.02,
                    "{} of {:?} is {}", quantile, sorted, found);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = unpack(&bytes);
            let _ = unpack(&[&[LAYOUT][..], &bytes].concat());
        }
    }

    #[test]
    fn of_nothing_nothing_is_said() {
        let nothing = Aggregate::default();
        assert!(nothing.is_empty());
        assert_eq!((nothing.failure_rate(), nothing.mean_us(), nothing.quantile_us(0.5)), (None, None, None));
        assert_eq!(pack(&BTreeMap::from([(3, nothing)])), [LAYOUT]);
        assert_eq!(unpack(&[]), None);
        assert_eq!(unpack(&[9]), None);
    }
}
