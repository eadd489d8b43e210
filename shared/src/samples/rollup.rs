//! Roll-ups as a merge of parts: counts, mean and squared deviations by the pairwise formula of
//! Chan, Golub and LeVeque (1979), which is stable where sums of squares cancel. Pure. The script
//! in `append.lua` repeats [`Rollup::merge`] beside the data; the contract suite holds the two together.

use super::{Point, PointOutcome, Rollup, Span};

impl Rollup {
    /// The roll-up of `self` and `other` together; both are of the same span.
    pub fn merge(&self, other: &Self) -> Self {
        let (n, m) = (f64::from(self.runs), f64::from(other.runs));
        let total = n + m;
        let delta = other.mean_us - self.mean_us;
        Self {
            start: self.start,
            runs: self.runs.saturating_add(other.runs),
            failures: self.failures.saturating_add(other.failures),
            mean_us: self.mean_us + delta * m / total,
            m2: self.m2 + other.m2 + delta * delta * n * m / total,
            min_us: self.min_us.min(other.min_us),
            max_us: self.max_us.max(other.max_us),
        }
    }

    /// The roll-up of one pass or failure; a skip has none.
    fn of_point(span: Span, point: &Point) -> Option<Self> {
        let failures = match point.outcome {
            PointOutcome::Pass => 0,
            PointOutcome::Fail => 1,
            PointOutcome::Skip => return None,
        };
        Some(Self {
            start: point.at - point.at.rem_euclid(span.micros()),
            runs: 1,
            failures,
            mean_us: f64::from(point.wall_us),
            m2: 0.0,
            min_us: point.wall_us,
            max_us: point.wall_us,
        })
    }
}

/// The roll-ups of points that are sorted by time, oldest first.
pub fn of_points(span: Span, points: &[Point]) -> Vec<Rollup> {
    let mut rollups: Vec<Rollup> = Vec::new();
    for part in points.iter().filter_map(|point| Rollup::of_point(span, point)) {
        match rollups.last_mut() {
            Some(last) if last.start == part.start => *last = last.merge(&part),
            _ => rollups.push(part),
        }
    }
    rollups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn point(wall_us: u32, outcome: PointOutcome) -> Point {
        Point { at: 0, wall_us, outcome, concurrency: 1, worker: 0, run: 0 }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    proptest! {
        #[test]
        fn merging_in_any_grouping_equals_one_pass(
            walls in proptest::collection::vec((any::<u32>(), any::<bool>()), 1..80),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
            reversed in any::<bool>(),
        ) {
            let points: Vec<Point> = walls.iter().map(|&(wall, failed)| {
                point(wall, if failed { PointOutcome::Fail } else { PointOutcome::Pass })
            }).collect();

            let count = points.len() as f64;
            let mean = walls.iter().map(|&(wall, _)| f64::from(wall)).sum::<f64>() / count;
            let m2 = walls.iter().map(|&(wall, _)| (f64::from(wall) - mean).powi(2)).sum::<f64>();

            let mut edges: Vec<usize> = cuts.iter().map(|cut| cut.index(points.len())).collect();
            edges.extend([0, points.len()]);
            edges.sort_unstable();
            edges.dedup();
            let mut parts: Vec<Rollup> =
                edges.windows(2).map(|edge| of_points(Span::Day, &points[edge[0]..edge[1]])[0]).collect();
            if reversed {
                parts.reverse();
            }
            let merged = parts.into_iter().reduce(|a, b| a.merge(&b)).unwrap();

            prop_assert_eq!(merged.runs as usize, points.len());
            prop_assert_eq!(merged.failures as usize, walls.iter().filter(|(_, failed)| *failed).count());
            prop_assert_eq!(merged.min_us, walls.iter().map(|(wall, _)| *wall).min().unwrap());
            prop_assert_eq!(merged.max_us, walls.iter().map(|(wall, _)| *wall).max().unwrap());
            prop_assert!(close(merged.mean_us, mean), "{} is not {mean}", merged.mean_us);
            prop_assert!(close(merged.m2, m2), "{} is not {m2}", merged.m2);
        }
    }

    #[test]
    fn skips_are_not_counted() {
        let points = [point(5, PointOutcome::Skip), point(7, PointOutcome::Pass)];
        assert_eq!(of_points(Span::Hour, &points)[0].runs, 1);
        assert!(of_points(Span::Hour, &points[..1]).is_empty());
    }
}
