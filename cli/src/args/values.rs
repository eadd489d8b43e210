//! Values as people type them, and what is wrong with those that make no sense.

use flakefarm_coordinator::plan::{Confidence, Rate, ScopeChoice};
use flakefarm_project::settings::parse_duration;
use flakefarm_shared::Order;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

pub(crate) use flakefarm_project::settings::counted;

/// Checks a value where it is typed, and keeps it as it was typed.
pub(crate) fn checked<T>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static
where
    T: 'static,
{
    move |text| parse(text).map(|_| text.to_owned())
}

/// A value whose type says how it is written.
pub(crate) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// `0.05` or `5%`.
fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let number = number.trim().parse::<f64>().map(|number| number / scale);
    number.map_err(|_| format!("`{text}` is not a share: write 0.05 or 5%"))
}

pub(crate) fn rate(text: &str) -> Result<Rate, String> {
    Rate::new(share(text)?).map_err(|error| error.to_string())
}

pub(crate) fn confidence(text: &str) -> Result<Confidence, String> {
    Confidence::new(share(text)?).map_err(|error| error.to_string())
}

pub(crate) fn scope(text: &str) -> Result<ScopeChoice, String> {
    parsed(text)
}

pub(crate) fn order(text: &str) -> Result<Order, String> {
    match text.split_once(':') {
        None if text == "given" => Ok(Order::Given),
        None if text == "reversed" => Ok(Order::Reversed),
        Some(("shuffled", seed)) => seed
            .parse()
            .map(|seed| Order::Shuffled { seed })
            .map_err(|_| format!("`{seed}` is not a seed: a whole number")),
        _ => Err(format!("`{text}` is not an order: given, reversed, or shuffled:SEED")),
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("`{text}` is not a duration: write 90s, 10m or 1h30m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_written_either_way() {
        assert_eq!(share("5%"), Ok(0.05));
        assert_eq!(share("0.05"), Ok(0.05));
        assert!(share("five").is_err());
    }

    #[test]
    fn orders_round_trip_from_the_reproduce_command() {
        assert_eq!(order("shuffled:7"), Ok(Order::Shuffled { seed: 7 }));
        assert!(order("shuffled").is_err());
        assert!(order("sideways").is_err());
    }
}
