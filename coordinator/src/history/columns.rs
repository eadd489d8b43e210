//! A day of a project in columns: of every test that ran, how often, how it ended and how long it took. What
//! questions over all tests of a project read, where sums by test would be read one row at a time. Pure.
//!
//! After the layout's number (`1`) and the number of tests come six columns. Four are runs of equal values
//! (length, value; variable-length numbers, see [`super::aggregate`]): the distance of each test's number to
//! the one before, runs, failures, skips. Two are fixed: the mean and the median duration, sixteen bits each
//! ([`codec::pack_micros`], to 0.05 %), 0 where no duration is known.

use super::aggregate::{Aggregate, put, take};
use flakefarm_shared::samples::codec;

/// The first byte of a day.
const LAYOUT: u8 = 1;
/// Most tests of a day.
const MOST_TESTS: u128 = 1 << 24;

/// One test's day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TestDay {
    /// The test's number.
    pub test: i64,
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
    /// Skips.
    pub skips: u64,
    /// The mean duration in microseconds, to 0.05 %; 0: not known.
    pub mean_us: u32,
    /// The median, likewise.
    pub median_us: u32,
}

impl TestDay {
    /// Of a test's sum of the day.
    pub fn of(test: i64, sum: &Aggregate) -> Self {
        let micros = |us: Option<f64>| us.map_or(0, |us| us.clamp(1.0, f64::from(u32::MAX)) as u32);
        Self {
            test,
            runs: sum.runs(),
            failures: sum.failures,
            skips: sum.skips,
            mean_us: micros(sum.mean_us()),
            median_us: micros(sum.quantile_us(0.5)),
        }
    }
}

/// Packs a day; a test comes once, the order does not matter.
pub fn pack(days: &[TestDay]) -> Vec<u8> {
    let mut days: Vec<&TestDay> = days.iter().collect();
    days.sort_unstable_by_key(|day| day.test);
    days.dedup_by_key(|day| day.test);
    let mut bytes = vec![LAYOUT];
    put(&mut bytes, days.len() as u128);
    let mut before = 0;
    let distances = days.iter().map(|day| {
        let distance = day.test.abs_diff(before);
        before = day.test;
        distance
    });
    put_runs(&mut bytes, distances);
    put_runs(&mut bytes, days.iter().map(|day| day.runs));
    put_runs(&mut bytes, days.iter().map(|day| day.failures));
    put_runs(&mut bytes, days.iter().map(|day| day.skips));
    for micros in [|day: &TestDay| day.mean_us, |day: &TestDay| day.median_us] {
        days.iter().for_each(|day| bytes.extend(codec::pack_micros(micros(day)).to_le_bytes()));
    }
    bytes
}

fn put_runs(bytes: &mut Vec<u8>, values: impl Iterator<Item = u64>) {
    let mut run: Option<(u64, u64)> = None;
    for value in values {
        match &mut run {
            Some((length, of)) if *of == value => *length += 1,
            _ => {
                end_run(bytes, run);
                run = Some((1, value));
            }
        }
    }
    end_run(bytes, run);
}

fn end_run(bytes: &mut Vec<u8>, run: Option<(u64, u64)>) {
    if let Some((length, value)) = run {
        put(bytes, u128::from(length));
        put(bytes, u128::from(value));
    }
}

/// A packed day, ready to be walked through.
#[derive(Debug, Clone)]
pub struct Columns<'a> {
    length: usize,
    distances: Runs,
    runs: Runs,
    failures: Runs,
    skips: Runs,
    means: &'a [u8],
    medians: &'a [u8],
}

/// Tests that follow one another at one distance, and ran and failed equally often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// The place of the first among the day's tests.
    pub place: usize,
    /// Its number.
    pub first: i64,
    /// From each number to the next.
    pub distance: u64,
    /// How many.
    pub length: usize,
    /// Passes and failures of each.
    pub runs: u64,
    /// Failures of each.
    pub failures: u64,
}

impl Stretch {
    /// Their numbers.
    pub fn tests(self) -> impl Iterator<Item = i64> {
        let number =
            move |n: usize| self.first.saturating_add_unsigned(self.distance.saturating_mul(n as u64));
        (0..self.length).map(number)
    }

    /// The place of a test among the day's, if it is one of these.
    pub fn place_of(self, test: i64) -> Option<usize> {
        let offset = u64::try_from(test.checked_sub(self.first)?).ok()?;
        let steps = match self.distance {
            0 => (offset == 0).then_some(0)?,
            distance => offset.is_multiple_of(distance).then_some(offset / distance)?,
        };
        let steps = usize::try_from(steps).ok().filter(|steps| *steps < self.length)?;
        Some(self.place + steps)
    }

    /// The number of the last.
    pub fn last(self) -> i64 {
        self.first.saturating_add_unsigned(self.distance.saturating_mul(self.length as u64 - 1))
    }
}

/// A column of equal values: how often each comes, one after the other.
#[derive(Debug, Clone, Default)]
struct Runs(Vec<(u64, u64)>);

impl<'a> Columns<'a> {
    /// Reads what [`pack`] packed; none of bytes that it did not make.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&LAYOUT, mut rest) = bytes.split_first()? else { return None };
        let length = take(&mut rest).filter(|length| *length <= MOST_TESTS)? as usize;
        let distances = Runs::read(&mut rest, length)?;
        let runs = Runs::read(&mut rest, length)?;
        let failures = Runs::read(&mut rest, length)?;
        let skips = Runs::read(&mut rest, length)?;
        let (means, medians) = rest.split_at_checked(2 * length)?;
        (medians.len() == 2 * length).then_some(Self {
            length,
            distances,
            runs,
            failures,
            skips,
            means,
            medians,
        })
    }

    /// Its tests, by number.
    pub fn tests(&self) -> impl Iterator<Item = TestDay> + '_ {
        let rest = self.skips.values().enumerate();
        self.counts().zip(rest).map(|((test, runs, failures), (place, skips))| {
            let (mean_us, median_us) = self.durations(place);
            TestDay { test, runs, failures, skips, mean_us, median_us }
        })
    }

    /// Number, runs and failures of its tests, by number.
    pub fn counts(&self) -> impl Iterator<Item = (i64, u64, u64)> + '_ {
        self.stretches()
            .flat_map(|stretch| stretch.tests().map(move |test| (test, stretch.runs, stretch.failures)))
    }

    /// The same in stretches of tests that are alike, by number: most of a day are.
    pub fn stretches(&self) -> impl Iterator<Item = Stretch> + '_ {
        let mut columns =
            [&self.distances, &self.runs, &self.failures].map(|column| column.0.iter().copied());
        let mut heads = [(0u64, 0u64); 3];
        let (mut place, mut before) = (0usize, 0i64);
        std::iter::from_fn(move || {
            for (head, column) in heads.iter_mut().zip(&mut columns) {
                if head.0 == 0 {
                    *head = column.next()?;
                }
            }
            let length = heads.iter().map(|(length, _)| *length).min().filter(|length| *length > 0)?;
            let [distance, runs, failures] = heads.map(|(_, value)| value);
            let stretch = Stretch {
                place,
                first: before.saturating_add_unsigned(distance),
                distance,
                length: length as usize,
                runs,
                failures,
            };
            heads.iter_mut().for_each(|(left, _)| *left -= length);
            place += stretch.length;
            before = before.saturating_add_unsigned(distance.saturating_mul(length));
            Some(stretch)
        })
    }

    /// The mean and the median duration of the test at a place, in microseconds; 0: not known.
    pub fn durations(&self, place: usize) -> (u32, u32) {
        (micros_at(self.means, place), micros_at(self.medians, place))
    }

    /// The lowest and the highest number.
    pub fn ends(&self) -> Option<(i64, i64)> {
        let first = self.distances.0.first()?.1;
        let all = self
            .distances
            .0
            .iter()
            .map(|(length, distance)| u128::from(*length) * u128::from(*distance))
            .sum::<u128>();
        Some((i64::try_from(first).unwrap_or(i64::MAX), i64::try_from(all).unwrap_or(i64::MAX)))
    }

    /// How many tests it is of.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing ran.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Runs {
    fn read(rest: &mut &[u8], length: usize) -> Option<Self> {
        let mut runs = Vec::new();
        let mut left = length as u64;
        while left > 0 {
            let run = u64::try_from(take(rest)?).ok()?;
            let value = u64::try_from(take(rest)?).ok()?;
            left = left.checked_sub(run).filter(|_| run > 0)?;
            runs.push((run, value));
        }
        Some(Self(runs))
    }

    fn values(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().flat_map(|(length, value)| std::iter::repeat_n(*value, *length as usize))
    }
}

fn micros_at(column: &[u8], place: usize) -> u32 {
    column
        .get(2 * place..)
        .and_then(<[u8]>::first_chunk::<2>)
        .map_or(0, |bytes| codec::unpack_micros(u16::from_le_bytes(*bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_day() -> impl Strategy<Value = TestDay> {
        (1..10_000i64, 0..50u64, 0..3u64, 0..2u64, any::<u32>(), 0..4_096u32).prop_map(
            |(test, runs, failures, skips, mean_us, median_us)| TestDay {
                test,
                runs: runs + failures,
                failures,
                skips,
                mean_us,
                median_us,
            },
        )
    }

    proptest! {
        #[test]
        fn a_day_is_read_as_it_was_written(mut days in proptest::collection::vec(any_day(), 0..60)) {
            days.sort_by_key(|day| day.test);
            days.dedup_by_key(|day| day.test);
            let mut backwards = days.clone();
            backwards.reverse();
            let packed = pack(&backwards);
            prop_assert_eq!(&packed, &pack(&days));
            let columns = Columns::read(&packed).unwrap();
            prop_assert_eq!(columns.len(), days.len());
            let read: Vec<TestDay> = columns.tests().collect();
            for (read, day) in read.iter().zip(&days) {
                let off = f64::from(day.mean_us) - f64::from(read.mean_us);
                prop_assert!((0.0..=f64::from(day.mean_us) * 5e-4).contains(&off), "{read:?} {day:?}");
                prop_assert_eq!(TestDay { mean_us: 0, ..*read }, TestDay { mean_us: 0, ..*day });
            }
            let stretches: Vec<Stretch> = columns.stretches().collect();
            for (place, day) in days.iter().enumerate() {
                let found: Vec<usize> = stretches.iter().filter_map(|s| s.place_of(day.test)).collect();
                prop_assert_eq!(found, vec![place]);
            }
            for (one, next) in stretches.iter().zip(stretches.iter().skip(1)) {
                prop_assert!(one.last() < next.first, "{one:?} {next:?}");
                prop_assert!(one.tests().all(|test| next.place_of(test).is_none()));
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            for bytes in [bytes.clone(), [&[LAYOUT][..], &bytes].concat()] {
                if let Some(columns) = Columns::read(&bytes) {
                    prop_assert_eq!(columns.tests().count(), columns.len());
                }
            }
        }
    }

    #[test]
    fn a_day_of_a_large_project_takes_four_bytes_a_test() {
        let days: Vec<TestDay> = (0..50_000)
            .map(|test| TestDay {
                test: test + 7,
                runs: 20,
                mean_us: 31_000,
                median_us: 30_000,
                ..TestDay::default()
            })
            .collect();
        let packed = pack(&days);
        assert!(packed.len() < 4 * days.len() + 100, "{}", packed.len());
    }
}
