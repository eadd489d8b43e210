//! Sums over the columns of a project's days: of every test, by class, over several windows at once.

use super::Window;
use crate::db::ProjectDayRow;
use crate::history::columns::Columns;
use crate::history::moves::RunsSeen;
use flakefarm_shared::TreatmentClass;
use flakefarm_shared::samples::codec;
use std::collections::{BTreeMap, HashMap};

/// A project's days, opened.
pub(super) struct Days<'a>(Vec<(TreatmentClass, i64, Columns<'a>)>);

/// Runs and failures of every test of one class in each of `N` windows, by the test's number less `first`.
pub(super) struct ClassSums<const N: usize> {
    first: i64,
    sums: Vec<[RunsSeen; N]>,
}

/// What some tests took in one class.
#[derive(Debug, Clone, Default)]
pub(super) struct Took {
    /// Median durations of days in microseconds, with the runs of each.
    medians: Vec<(u32, u64)>,
    /// All durations together, in microseconds.
    pub(super) micros: f64,
}

impl Took {
    /// The median of the days' medians, weighted by runs, in milliseconds.
    pub(super) fn median_ms(&self) -> Option<f64> {
        let mut medians = self.medians.clone();
        medians.sort_unstable();
        let half = medians.iter().map(|(_, runs)| runs).sum::<u64>().div_ceil(2);
        let mut seen = 0;
        let middle = medians.iter().find(|(_, runs)| {
            seen += runs;
            seen >= half
        });
        middle.map(|(micros, _)| f64::from(*micros) / 1e3)
    }
}

impl<'a> Days<'a> {
    /// A day that cannot be read is left out: it can be summed up anew.
    pub(super) fn open(rows: &'a [ProjectDayRow]) -> Self {
        let open = |row: &'a ProjectDayRow| Some((row.class, row.day, Columns::read(&row.packed)?));
        Self(rows.iter().filter_map(open).collect())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(TreatmentClass, i64, Columns<'a>)> {
        self.0.iter()
    }

    /// The sums over each window, by class.
    pub(super) fn sums<const N: usize>(
        &self,
        windows: [Window; N],
    ) -> BTreeMap<TreatmentClass, ClassSums<N>> {
        let ends = self.0.iter().filter_map(|(_, _, columns)| columns.ends());
        let (first, last) =
            ends.fold((i64::MAX, i64::MIN), |(first, last), (a, b)| (first.min(a), last.max(b)));
        let length = usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0);
        let mut classes: BTreeMap<TreatmentClass, ClassSums<N>> = BTreeMap::new();
        for (class, day, columns) in &self.0 {
            let inside = windows.map(|window| (window.from..window.to).contains(day));
            if !inside.contains(&true) {
                continue;
            }
            let of_class = classes
                .entry(*class)
                .or_insert_with(|| ClassSums { first, sums: vec![[RunsSeen::default(); N]; length] });
            for (test, runs, failures) in columns.counts() {
                let sums = &mut of_class.sums[(test - first) as usize];
                for (sum, inside) in sums.iter_mut().zip(inside) {
                    if inside {
                        sum.runs += runs;
                        sum.failures += failures;
                    }
                }
            }
        }
        classes
    }

    /// What the runs of some tests took in a window, by test and class.
    pub(super) fn took(&self, tests: &[i64], window: Window) -> HashMap<(i64, TreatmentClass), Took> {
        let mut wanted: Vec<i64> = tests.to_vec();
        wanted.sort_unstable();
        let mut took: HashMap<(i64, TreatmentClass), Took> = HashMap::new();
        for (class, day, columns) in &self.0 {
            if !(window.from..window.to).contains(day) {
                continue;
            }
            let mut next = wanted.iter().peekable();
            for (place, (test, runs, _)) in columns.counts().enumerate() {
                while next.next_if(|wanted| **wanted < test).is_some() {}
                let Some(wanted) = next.peek() else { break };
                if **wanted != test || runs == 0 {
                    continue;
                }
                let (mean_us, median_us) = columns.durations(place);
                if median_us > 0 {
                    let of_test = took.entry((test, *class)).or_default();
                    of_test.medians.push((median_us, runs));
                    of_test.micros += f64::from(mean_us) * runs as f64;
                }
            }
        }
        took
    }
}

impl<const N: usize> ClassSums<N> {
    /// Tests that ran in any of the windows, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (i64, &[RunsSeen; N])> {
        let ran = |sums: &[RunsSeen; N]| sums.iter().any(|sum| sum.runs > 0);
        (self.first..).zip(&self.sums).filter(move |(_, sums)| ran(sums))
    }

    pub(super) fn of(&self, test: i64) -> [RunsSeen; N] {
        let place = usize::try_from(test.wrapping_sub(self.first)).ok();
        place.and_then(|place| self.sums.get(place)).copied().unwrap_or([RunsSeen::default(); N])
    }
}

impl Window {
    /// When it starts, in microseconds since the epoch.
    pub fn start(self) -> flakefarm_shared::UnixMicros {
        codec::day_start(self.from)
    }

    /// When it is over.
    pub fn end(self) -> flakefarm_shared::UnixMicros {
        codec::day_start(self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::columns::{TestDay, pack};

    #[test]
    fn windows_are_summed_up_beside_one_another() {
        let day = |test, runs, failures, median_us| TestDay {
            test,
            runs,
            failures,
            skips: 0,
            mean_us: median_us,
            median_us,
        };
        let row =
            |day, tests: &[TestDay]| ProjectDayRow { class: TreatmentClass::Ci, day, packed: pack(tests) };
        let rows = [
            row(10, &[day(7, 5, 1, 100), day(90, 3, 0, 400)]),
            row(11, &[day(7, 1, 0, 300)]),
            row(20, &[day(90, 2, 2, 0)]),
        ];
        let days = Days::open(&rows);
        let sums = days.sums([Window { from: 0, to: 100 }, Window { from: 11, to: 12 }]);
        let ci = &sums[&TreatmentClass::Ci];
        let seen = |runs, failures| RunsSeen { runs, failures };
        assert_eq!(ci.of(7), [seen(6, 1), seen(1, 0)]);
        assert_eq!(ci.of(90), [seen(5, 2), seen(0, 0)]);
        assert_eq!(ci.of(8), [RunsSeen::default(); 2]);
        assert_eq!(ci.iter().map(|(test, _)| test).collect::<Vec<_>>(), [7, 90]);
        let took = days.took(&[90, 7], Window { from: 0, to: 100 });
        let of_seven = &took[&(7, TreatmentClass::Ci)];
        assert_eq!((of_seven.median_ms(), of_seven.micros), (Some(0.1), 800.0));
        assert_eq!(took[&(90, TreatmentClass::Ci)].micros, 1_200.0);
        assert!(Days::open(&[]).sums([Window { from: 0, to: 100 }]).is_empty());
    }
}
