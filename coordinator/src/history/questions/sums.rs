//! Sums over the columns of a project's days: of every test, by class, over several windows at once.

use super::Window;
use super::names::Names;
use crate::db::ProjectDayRow;
use crate::history::columns::Columns;
use crate::history::moves::RunsSeen;
use flakefarm_shared::TreatmentClass;
use flakefarm_shared::samples::codec;
use std::collections::{BTreeMap, HashMap};

/// A project's days, opened; tests are known under their present names.
pub(super) struct Days<'a> {
    days: Vec<(TreatmentClass, i64, Columns<'a>)>,
    names: &'a Names,
}

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
    pub(super) fn open(rows: &'a [ProjectDayRow], names: &'a Names) -> Self {
        let open = |row: &'a ProjectDayRow| Some((row.class, row.day, Columns::read(&row.packed)?));
        Self { days: rows.iter().filter_map(open).collect(), names }
    }

    /// Class, day, and number, runs and failures of every test that ran, each once.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TreatmentClass, i64, Vec<(i64, u64, u64)>)> + '_ {
        self.days.iter().map(|(class, day, columns)| (*class, *day, self.counts(columns)))
    }

    fn counts(&self, columns: &Columns<'_>) -> Vec<(i64, u64, u64)> {
        if self.names.is_empty() {
            return columns.counts().collect();
        }
        summed(
            columns.counts().map(|(test, runs, failures)| (self.names.now(test), runs, failures)).collect(),
        )
    }

    /// The same of each day of a window, some classes together, in the order of days. One day after the other: all
    /// of a large project's at once fill the memory.
    pub(super) fn daily(
        &self,
        classes: &[TreatmentClass],
        window: Window,
    ) -> impl Iterator<Item = (i64, Vec<(i64, u64, u64)>)> + '_ {
        let mut columns: BTreeMap<i64, Vec<&Columns<'a>>> = BTreeMap::new();
        for (class, day, of_class) in &self.days {
            if classes.contains(class) && (window.from..window.to).contains(day) {
                columns.entry(*day).or_default().push(of_class);
            }
        }
        columns.into_iter().map(|(day, columns)| {
            let counts: Vec<Vec<(i64, u64, u64)>> =
                columns.into_iter().map(|of_class| self.counts(of_class)).collect();
            (day, summed(counts.concat()))
        })
    }

    /// What tests are called now.
    pub(super) fn names(&self) -> &Names {
        self.names
    }

    /// The sums over each window, by class.
    pub(super) fn sums<const N: usize>(
        &self,
        windows: [Window; N],
    ) -> BTreeMap<TreatmentClass, ClassSums<N>> {
        let ends = self.days.iter().filter_map(|(_, _, columns)| columns.ends());
        // A test may not have run yet under its present name.
        let named = self.names.iter().map(|(_, now)| (now, now));
        let (first, last) =
            ends.chain(named).fold((i64::MAX, i64::MIN), |(first, last), (a, b)| (first.min(a), last.max(b)));
        let length = usize::try_from(last.saturating_sub(first).saturating_add(1)).unwrap_or(0);
        let mut classes: BTreeMap<TreatmentClass, ClassSums<N>> = BTreeMap::new();
        for (class, day, columns) in &self.days {
            let inside = |n: &usize| (windows[*n].from..windows[*n].to).contains(day);
            let inside: Vec<usize> = (0..N).filter(inside).collect();
            if inside.is_empty() {
                continue;
            }
            let of_class = classes
                .entry(*class)
                .or_insert_with(|| ClassSums { first, sums: vec![[RunsSeen::default(); N]; length] });
            for stretch in columns.stretches() {
                let from = (stretch.first - first) as usize;
                let step = (stretch.distance as usize).max(1);
                for sums in of_class.sums[from..].iter_mut().step_by(step).take(stretch.length) {
                    for window in &inside {
                        sums[*window].runs += stretch.runs;
                        sums[*window].failures += stretch.failures;
                    }
                }
            }
        }
        for of_class in classes.values_mut() {
            for (earlier, now) in self.names.iter() {
                of_class.rename(earlier, now);
            }
        }
        classes
    }

    /// What the runs of some tests took in a window, by test and class.
    pub(super) fn took(&self, tests: &[i64], window: Window) -> HashMap<(i64, TreatmentClass), Took> {
        let mut wanted: Vec<i64> = self.names.with_earlier(tests);
        wanted.sort_unstable();
        let mut took: HashMap<(i64, TreatmentClass), Took> = HashMap::new();
        for (class, day, columns) in &self.days {
            if !(window.from..window.to).contains(day) {
                continue;
            }
            let mut next = wanted.iter().copied().peekable();
            for stretch in columns.stretches().filter(|stretch| stretch.runs > 0) {
                while let Some(test) = next.next_if(|wanted| *wanted <= stretch.last()) {
                    let Some(place) = stretch.place_of(test) else { continue };
                    let (mean_us, median_us) = columns.durations(place);
                    if median_us > 0 {
                        let of_test = took.entry((self.names.now(test), *class)).or_default();
                        of_test.medians.push((median_us, stretch.runs));
                        of_test.micros += f64::from(mean_us) * stretch.runs as f64;
                    }
                }
            }
        }
        took
    }
}

/// Each test's counts together, sorted by test.
fn summed(mut counts: Vec<(i64, u64, u64)>) -> Vec<(i64, u64, u64)> {
    counts.sort_by_key(|(test, ..)| *test);
    counts.dedup_by(|one, kept| {
        let same = one.0 == kept.0;
        if same {
            kept.1 += one.1;
            kept.2 += one.2;
        }
        same
    });
    counts
}

impl<const N: usize> ClassSums<N> {
    /// Counts what ran under an earlier number for the present one.
    fn rename(&mut self, earlier: i64, now: i64) {
        let place = |test: i64| usize::try_from(test.wrapping_sub(self.first)).ok();
        let (Some(from), Some(to)) = (place(earlier), place(now)) else { return };
        let nothing = [RunsSeen::default(); N];
        let Some(moved) = self.sums.get_mut(from).map(|sums| std::mem::replace(sums, nothing)) else {
            return;
        };
        for (sum, moved) in self.sums[to].iter_mut().zip(moved) {
            sum.runs += moved.runs;
            sum.failures += moved.failures;
        }
    }

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
        let names = Names::default();
        let days = Days::open(&rows, &names);
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
        assert!(Days::open(&[], &names).sums([Window { from: 0, to: 100 }]).is_empty());
    }
}
