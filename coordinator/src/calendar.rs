//! Days counted from the epoch as dates of the calendar, in UTC. Pure.

use flakefarm_shared::samples::codec;
use time::{Date, Month};

/// A day counted from the epoch as a date.
pub fn date_of(day: i64) -> Date {
    const EPOCH: Date = match Date::from_calendar_date(1970, Month::January, 1) {
        Ok(date) => date,
        Err(_) => panic!("the epoch is a date"),
    };
    EPOCH + time::Duration::days(day.clamp(0, codec::END_OF_DAYS))
}

/// The first day of a day's month, and the day's place in it, from 1.
pub fn month_of(day: i64) -> (i64, u8) {
    let date = date_of(day);
    (day - i64::from(date.day()) + 1, date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_know_their_month() {
        assert_eq!(month_of(0), (0, 1));
        assert_eq!(month_of(20_512), (20_485, 28));
        assert_eq!(date_of(20_512).to_string(), "2026-02-28");
    }
}
