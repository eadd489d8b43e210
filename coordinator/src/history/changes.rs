//! When something changed: change points of a test's failure rate and of its duration. Pure and
//! deterministic.
//!
//! E-divisive (Matteson and James 2014): a series is cut where the energy statistic between its two parts is
//! largest, and each part is cut again, as long as the difference is significant. Not by permutations, which
//! give another answer each time, but by Student's t test with pooled variance, as Hunter does (Fleming et
//! al. 2023); a cut that later ones have made needless is taken back, the least significant first. A cut is
//! the best of many, so its chance is multiplied by how many there were (Bonferroni) and has to stay below
//! [`CHANCE`].
//!
//! Passes and failures are zeros and ones, for which a t test cries wolf while failures are few: there
//! Fisher's exact test must agree. Their energy statistic follows from counts, so hours are as good as single
//! runs. Durations are compared by their logarithms, and a change of less than [`MAGNITUDE`] is none.

use crate::score::chance_of_difference;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// The chance that a series which never changed shows a change.
pub const CHANCE: f64 = 0.001;
/// The least change of a duration, as a share.
pub const MAGNITUDE: f64 = 0.1;
/// The fewest runs on each side of a change of the failure rate.
const FEWEST_RUNS: u64 = 5;
/// The fewest values on each side of a change of duration.
const FEWEST_VALUES: usize = 4;
/// The most values of durations that are looked at, the last ones: the work grows with their square.
const MOST_VALUES: usize = 500;

/// Runs that are looked at as one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Passes and failures.
    pub runs: u64,
    /// Failures.
    pub failures: u64,
}

impl Tally {
    fn rate(self) -> f64 {
        self.failures as f64 / self.runs as f64
    }
}

/// A change: from `place` on, values are others than before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// The first value after it.
    pub place: usize,
    /// The mean before it, back to the change before that.
    pub before: f64,
    /// The mean from it on, up to the next change.
    pub after: f64,
    /// The chance of a difference like this without a change.
    pub chance: f64,
}

/// Changes of the failure rate over tallies in the order of time. Tallies without runs change nothing.
pub fn of_rate(tallies: &[Tally]) -> Vec<Change> {
    let mut sums = vec![Tally::default()];
    for tally in tallies {
        let last = sums[sums.len() - 1];
        sums.push(Tally { runs: last.runs + tally.runs, failures: last.failures + tally.failures });
    }
    let between = |from: usize, to: usize| Tally {
        runs: sums[to].runs - sums[from].runs,
        failures: sums[to].failures - sums[from].failures,
    };
    let series = Series {
        length: tallies.len(),
        best: &|from, to| {
            let enough = |place: &usize| {
                tallies[*place].runs > 0
                    && between(from, *place).runs >= FEWEST_RUNS
                    && between(*place, to).runs >= FEWEST_RUNS
            };
            best(
                (from + 1..to)
                    .filter(enough)
                    .map(|place| (place, energy_of_tallies(between(from, place), between(place, to)))),
            )
        },
        chance: &|from, place, to| chance_of_tallies(between(from, place), between(place, to)),
    };
    let mean = |from, to| between(from, to).rate();
    changes(&series, &mean)
}

/// Changes of durations (all above 0) in the order of time; means are geometric.
pub fn of_duration(durations: &[f64]) -> Vec<Change> {
    let skipped = durations.len().saturating_sub(MOST_VALUES);
    let logs: Vec<f64> = durations[skipped..].iter().map(|value| value.max(f64::MIN_POSITIVE).ln()).collect();
    let series = Series {
        length: logs.len(),
        best: &|from, to| {
            let energies = energies(&logs[from..to]);
            let places =
                from + FEWEST_VALUES..(to + 1).saturating_sub(FEWEST_VALUES).max(from + FEWEST_VALUES);
            best(places.map(|place| (place, energies[place - from])))
        },
        chance: &|from, place, to| {
            let (before, after) = (Moments::of(&logs[from..place]), Moments::of(&logs[place..to]));
            if (after.mean - before.mean).exp_m1().abs() < MAGNITUDE {
                return 1.0;
            }
            student(before, after)
        },
    };
    let mean = |from: usize, to: usize| Moments::of(&logs[from..to]).mean.exp();
    let mut found = changes(&series, &mean);
    found.iter_mut().for_each(|change| change.place += skipped);
    found
}

/// What is cut: the best cut between two places with how many there are to choose from, and the chance of
/// one that was chosen.
struct Series<'a> {
    length: usize,
    best: &'a dyn Fn(usize, usize) -> Option<(usize, usize)>,
    chance: &'a dyn Fn(usize, usize, usize) -> f64,
}

fn changes(series: &Series<'_>, mean: &dyn Fn(usize, usize) -> f64) -> Vec<Change> {
    let mut cuts = Vec::new();
    let mut open = vec![(0, series.length)];
    while let Some((from, to)) = open.pop() {
        let Some((place, choices)) = (series.best)(from, to) else { continue };
        if (series.chance)(from, place, to) * (choices as f64) < CHANCE {
            cuts.push((place, choices));
            open.extend([(from, place), (place, to)]);
        }
    }
    cuts.sort_unstable();
    loop {
        let edge = |at: usize| cuts.get(at).map_or(series.length, |(place, _)| *place);
        let chances: Vec<f64> = (0..cuts.len())
            .map(|at| {
                let from = at.checked_sub(1).map_or(0, edge);
                (series.chance)(from, cuts[at].0, edge(at + 1)) * cuts[at].1 as f64
            })
            .collect();
        let needless = (0..cuts.len())
            .filter(|at| chances[*at] >= CHANCE)
            .max_by(|a, b| chances[*a].total_cmp(&chances[*b]));
        if let Some(at) = needless {
            cuts.remove(at);
            continue;
        }
        let change = |(at, (place, _)): (usize, &(usize, usize))| Change {
            place: *place,
            before: mean(at.checked_sub(1).map_or(0, edge), *place),
            after: mean(*place, edge(at + 1)),
            chance: chances[at].min(1.0),
        };
        return cuts.iter().enumerate().map(change).collect();
    }
}

/// The place of the largest statistic, the first of equals, and how many there were.
fn best(energies: impl Iterator<Item = (usize, f64)>) -> Option<(usize, usize)> {
    let mut found: Option<(usize, f64)> = None;
    let mut choices = 0;
    for (place, energy) in energies {
        choices += 1;
        if found.is_none_or(|(_, most)| energy > most) {
            found = Some((place, energy));
        }
    }
    found.filter(|(_, energy)| *energy > 0.0).map(|(place, _)| (place, choices))
}

/// mn/(m+n) (2 E|X-Y| - E|X-X'| - E|Y-Y'|) of zeros and ones.
fn energy_of_tallies(x: Tally, y: Tally) -> f64 {
    let (m, n) = (x.runs as f64, y.runs as f64);
    let (p, q) = (x.rate(), y.rate());
    let within = |tally: Tally| {
        let (runs, failures) = (tally.runs as f64, tally.failures as f64);
        2.0 * failures * (runs - failures) / (runs * (runs - 1.0))
    };
    m * n / (m + n) * (2.0 * (p * (1.0 - q) + q * (1.0 - p)) - within(x) - within(y))
}

/// The same of any values, for every cut: of the first `k` against the others at `k`.
fn energies(values: &[f64]) -> Vec<f64> {
    let distance = |i: usize, j: usize| (values[i] - values[j]).abs();
    let count = values.len();
    let mut energies = vec![0.0; count + 1];
    let (mut left, mut across) = (0.0, 0.0);
    let mut right: f64 = (0..count).map(|i| (0..i).map(|j| distance(i, j)).sum::<f64>()).sum();
    for moved in 0..count {
        let to_left: f64 = (0..moved).map(|j| distance(moved, j)).sum();
        let to_right: f64 = (moved + 1..count).map(|j| distance(moved, j)).sum();
        left += to_left;
        right -= to_right;
        across += to_right - to_left;
        let (m, n) = ((moved + 1) as f64, (count - moved - 1) as f64);
        let pairs = |count: f64| if count > 1.0 { count * (count - 1.0) / 2.0 } else { f64::INFINITY };
        if n > 0.0 {
            energies[moved + 1] =
                m * n / (m + n) * (2.0 * across / (m * n) - left / pairs(m) - right / pairs(n));
        }
    }
    energies
}

fn chance_of_tallies(x: Tally, y: Tally) -> f64 {
    let of = |tally: Tally| Moments {
        count: tally.runs as f64,
        mean: tally.rate(),
        squares: tally.failures as f64 * (1.0 - tally.rate()),
    };
    let count = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let exact = chance_of_difference((count(x.failures), count(x.runs)), (count(y.failures), count(y.runs)));
    // One-sided; the other side is as likely.
    student(of(x), of(y)).max((2.0 * exact).min(1.0))
}

#[derive(Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    /// The sum of squared distances from the mean.
    squares: f64,
}

impl Moments {
    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        Self { count, mean, squares: values.iter().map(|value| (value - mean).powi(2)).sum() }
    }
}

/// Student's t test with pooled variance, two-sided.
fn student(x: Moments, y: Moments) -> f64 {
    let freedom = x.count + y.count - 2.0;
    let difference = (x.mean - y.mean).abs();
    if freedom < 1.0 || difference == 0.0 {
        return 1.0;
    }
    let variance = (x.squares + y.squares) / freedom;
    if variance <= 0.0 {
        return 0.0;
    }
    let t = difference / (variance * (1.0 / x.count + 1.0 / y.count)).sqrt();
    StudentsT::new(0.0, 1.0, freedom).map_or(1.0, |student| 2.0 * student.sf(t))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng as _, RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    fn tallies(parts: &[(usize, u64, u64)]) -> Vec<Tally> {
        parts
            .iter()
            .flat_map(|(count, runs, failures)| {
                std::iter::repeat_n(Tally { runs: *runs, failures: *failures }, *count)
            })
            .collect()
    }

    #[track_caller]
    fn check(parts: &[(usize, u64, u64)], expect: &[usize]) {
        let found: Vec<usize> = of_rate(&tallies(parts)).iter().map(|change| change.place).collect();
        assert_eq!(found, expect, "{parts:?}");
    }

    #[test]
    fn a_rate_changes_where_it_does() {
        check(&[(30, 20, 0), (10, 20, 5)], &[30]);
        check(&[(30, 20, 5), (10, 20, 0)], &[30]);
        check(&[(20, 20, 0), (20, 20, 4), (20, 20, 0)], &[20, 40]);
        check(&[(20, 20, 0), (20, 20, 20)], &[20]);
        check(&[(10, 1, 0), (10, 1, 1)], &[10]);
        // Nothing, always the same, and too little.
        check(&[], &[]);
        check(&[(40, 20, 0)], &[]);
        check(&[(40, 20, 3)], &[]);
        check(&[(40, 20, 20)], &[]);
        check(&[(30, 20, 0), (1, 20, 1)], &[]);
        check(&[(1, 1, 0), (1, 1, 1)], &[]);
    }

    #[test]
    fn a_duration_changes_where_it_does() {
        let mut dice = ChaCha8Rng::seed_from_u64(3);
        let mut around = |mean: f64| mean * (1.0 + 0.05 * (dice.random::<f64>() - 0.5));
        let values: Vec<f64> = (0..60).map(|day| around(if day < 40 { 10.0 } else { 14.0 })).collect();
        let found = of_duration(&values);
        assert_eq!(found.iter().map(|change| change.place).collect::<Vec<_>>(), [40]);
        assert!((found[0].before - 10.0).abs() < 0.2 && (found[0].after - 14.0).abs() < 0.3, "{found:?}");
        let small: Vec<f64> = (0..60).map(|day| around(if day < 40 { 10.0 } else { 10.6 })).collect();
        assert_eq!(of_duration(&small), [], "less than anybody would notice");
        assert_eq!(of_duration(&[1.0, 2.0, 3.0]), []);
        assert_eq!(of_duration(&vec![5.0; 300]), []);
    }

    #[test]
    fn the_energy_of_counts_is_that_of_zeros_and_ones() {
        let ones = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0];
        let by_value = energies(&ones);
        for cut in 2..8 {
            let tally = |values: &[f64]| Tally {
                runs: values.len() as u64,
                failures: values.iter().sum::<f64>() as u64,
            };
            let by_count = energy_of_tallies(tally(&ones[..cut]), tally(&ones[cut..]));
            assert!((by_count - by_value[cut]).abs() < 1e-12, "{cut}: {by_count} {}", by_value[cut]);
        }
    }

    /// Seeded, so the same each time; by the bound 2,000 series have two false alarms on average.
    #[test]
    fn what_never_changed_is_seldom_said_to_have() {
        let mut dice = ChaCha8Rng::seed_from_u64(11);
        let mut alarms = 0;
        for series in 0..2_000 {
            let rate = [0.01, 0.05, 0.2, 0.5][series % 4];
            let tallies: Vec<Tally> = (0..60)
                .map(|_| {
                    let runs = dice.next_u64() % 8;
                    let failures = (0..runs).filter(|_| dice.random_bool(rate)).count() as u64;
                    Tally { runs, failures }
                })
                .collect();
            alarms += usize::from(!of_rate(&tallies).is_empty());
        }
        assert!(alarms <= 2, "{alarms}");
    }

    #[test]
    fn a_large_change_is_found_within_a_day_of_runs() {
        let mut dice = ChaCha8Rng::seed_from_u64(5);
        let mut found = 0;
        for _ in 0..200 {
            let tallies: Vec<Tally> = (0..40)
                .map(|day| {
                    let rate = if day < 30 { 0.01 } else { 0.3 };
                    Tally { runs: 20, failures: (0..20).filter(|_| dice.random_bool(rate)).count() as u64 }
                })
                .collect();
            let places: Vec<usize> = of_rate(&tallies).iter().map(|change| change.place).collect();
            found += usize::from(places.len() == 1 && (29..=31).contains(&places[0]));
        }
        assert!(found >= 195, "{found} of 200");
    }
}
