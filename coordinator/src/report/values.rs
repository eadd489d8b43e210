//! Values as reports write them.

use flakefarm_shared::{Order, Scope, UnixMicros};
use time::OffsetDateTime;

/// The word for a scope.
pub(super) fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Test => "test",
        Scope::File => "file",
        Scope::Suite => "suite",
    }
}

/// An order, as `--order` takes it. What an order as listed lists is not part of a sweep's question.
pub(super) fn order_word(order: Order) -> String {
    match order {
        Order::Given | Order::AsListed => "given".to_owned(),
        Order::Reversed => "reversed".to_owned(),
        Order::Shuffled { seed } => format!("shuffled:{seed}"),
    }
}

/// To the millisecond; a time no calendar has becomes the epoch.
pub(super) fn date_time(at: UnixMicros) -> OffsetDateTime {
    let nanos = i128::from(at.div_euclid(1_000)) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        // RFC 3339 has four digits for the year.
        .filter(|time| (0..=9999).contains(&time.year()))
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Few enough digits that every JSON parser reads back what was written.
pub(super) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
