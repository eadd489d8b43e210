//! Medians with their spread over rounds.

use serde::Serialize;

/// Of several rounds: the median, and the least and greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value; those that are no numbers do not count.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let sorted = sorted(values);
        Some(Self { median: quantile(&sorted, 0.5)?, min: *sorted.first()?, max: *sorted.last()? })
    }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The quantile `q` of any values, between the two nearest if it falls between them.
pub(crate) fn quantile_of(values: &[f64], q: f64) -> Option<f64> {
    quantile(&sorted(values), q)
}

fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = q * last as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    Some(low + (high - low) * place.fract())
}

/// Three digits, roughly.
pub(crate) fn rounded(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.2}"),
        value if value < 100.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two() {
        assert_eq!(Spread::of(&[4.0, 1.0, 3.0, 2.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of(&[7.0]), Some(Spread { median: 7.0, min: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN, 1.0]).map(|spread| spread.median), Some(1.0));
    }

    #[test]
    fn quantiles_reach_both_ends() {
        let values: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(quantile_of(&values, 0.0), Some(0.0));
        assert_eq!(quantile_of(&values, 0.99), Some(99.0));
        assert_eq!(quantile_of(&values, 1.0), Some(100.0));
    }
}
