//! Notifications: who is told of what, when, and how. What happened is read from the recorded events; what
//! is to be told becomes a row (see [`crate::db::DeliveryRow`]) before it is sent, so that it is told at
//! least once, under an id that stays the same. Deciding is pure; sending is apart.

pub mod channel;
pub mod comment;
pub mod message;
pub mod send;

pub use channel::{Channel, Kind, Quiet};
pub use message::{Message, Subject};

use std::time::Duration;

/// Tries after which a delivery is dead.
pub const TRIES: u32 = 10;
/// The first pause between two tries.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// How long to wait after `tries` failed attempts: twice as long each time, to an hour.
pub fn pause(tries: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(10)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_an_hour() {
        assert_eq!([1, 2, 3, 20].map(|tries| pause(tries).as_secs()), [30, 60, 120, 3600]);
    }
}
