//! Where shifted clocks start, as dates: the same arithmetic that the plugin does in the sandbox.

use super::{ClockStart, World};
use time::{Date, Duration, Month, OffsetDateTime, Time, Weekday};

/// A day and an hour of each year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yearly {
    /// A day of the month at a time, in UTC.
    Day {
        /// From 1.
        month: u8,
        /// From 1; a year that lacks it is left out.
        day: u8,
        /// Hour and minute.
        at: (u8, u8),
    },
    /// The first, second, ... of a weekday in the month, in UTC.
    Weekday {
        /// From 1.
        month: u8,
        /// From 1 to 4.
        nth: u8,
        /// Days after Monday.
        weekday: u8,
        /// Hour and minute.
        at: (u8, u8),
    },
}

const fn day(month: u8, day: u8, hour: u8, minute: u8) -> Yearly {
    Yearly::Day { month, day, at: (hour, minute) }
}

const fn weekday(month: u8, nth: u8, weekday: u8, hour: u8, minute: u8) -> Yearly {
    Yearly::Weekday { month, nth, weekday, at: (hour, minute) }
}

/// Where a clock stands in each month. Together they touch every weekday, every part of the day, the
/// beginning, the middle and the end of months; three are the day that the next month lacks.
const MONTHS: [Yearly; 12] = [
    weekday(1, 2, 1, 9, 10),
    weekday(2, 3, 5, 14, 40),
    weekday(3, 1, 0, 0, 20),
    weekday(4, 4, 3, 21, 50),
    day(5, 31, 5, 30),
    weekday(6, 3, 2, 12, 5),
    weekday(7, 1, 4, 16, 25),
    day(8, 31, 3, 15),
    weekday(9, 2, 5, 23, 40),
    day(10, 31, 7, 45),
    weekday(11, 1, 3, 18, 55),
    weekday(12, 3, 6, 10, 35),
];
/// The names that words have for months.
pub(super) const NAMES: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
/// A leap year is never further away than this.
const YEARS: i32 = 9;

impl World {
    /// The clock in each month of the year.
    pub fn months() -> [World; 12] {
        std::array::from_fn(|place| {
            World::Clock(ClockStart::InMonth { month: u8::try_from(place + 1).expect("twelve months") })
        })
    }

    /// Three of them, four months apart: others on each of four days, and every third of the year in each.
    pub fn months_in_turn(days_since_1970: u64) -> [World; 3] {
        let first = (days_since_1970 % 4) as usize;
        std::array::from_fn(|place| World::months()[first + 4 * place])
    }
}

impl ClockStart {
    /// The day and hour it stands for in every year; none where that is counted otherwise.
    pub fn yearly(self) -> Option<Yearly> {
        match self {
            ClockStart::MonthEnd => Some(day(1, 31, 12, 0)),
            ClockStart::LeapDay => Some(day(2, 29, 12, 0)),
            // A month that is none stands for one of the twelve.
            ClockStart::InMonth { month } => Some(MONTHS[(usize::from(month) + 11) % 12]),
            ClockStart::Days(_) | ClockStart::YearEnd | ClockStart::DaylightSaving => None,
        }
    }

    /// Where a clock that is shifted at `now` starts.
    pub fn instant(self, now: OffsetDateTime) -> OffsetDateTime {
        let next = |of: &dyn Fn(i32) -> Option<OffsetDateTime>| {
            (now.year()..now.year() + YEARS).filter_map(of).find(|instant| *instant > now).unwrap_or(now)
        };
        match (self, self.yearly()) {
            (_, Some(yearly)) => next(&|year| yearly.in_year(year)),
            (ClockStart::Days(days), None) => now.saturating_add(Duration::days(i64::from(days))),
            (ClockStart::YearEnd, None) => {
                next(&|year| Some(day(12, 31, 23, 59).in_year(year)? + Duration::seconds(30)))
            }
            (_, None) => next(&|year| {
                // In Central Europe: 01:00 UTC on the last Sunday of March.
                let last = Date::from_calendar_date(year, Month::March, 31).ok()?;
                let back = i64::from(last.weekday().number_days_from_sunday());
                let sunday = last - Duration::days(back);
                Some(sunday.with_hms(0, 59, 30).ok()?.assume_utc())
            }),
        }
    }
}

impl Yearly {
    /// None where the year lacks the day.
    fn in_year(self, year: i32) -> Option<OffsetDateTime> {
        let (date, (hour, minute)) = match self {
            Yearly::Day { month, day, at } => {
                (Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?, at)
            }
            Yearly::Weekday { month, nth, weekday, at } => {
                let first = Date::from_calendar_date(year, Month::try_from(month).ok()?, 1).ok()?;
                let ahead = (7 + weekday - first.weekday().number_days_from_monday()) % 7;
                (first + Duration::days(i64::from(ahead) + 7 * i64::from(nth - 1)), at)
            }
        };
        Some(date.with_time(Time::from_hms(hour, minute, 0).ok()?).assume_utc())
    }

    /// `31 May, 05:30 UTC`; `the third Wednesday of June, 12:05 UTC`.
    pub fn words(self) -> String {
        const NTH: [&str; 4] = ["first", "second", "third", "fourth"];
        match self {
            Yearly::Day { month, day, at: (hour, minute) } => {
                format!("{day} {}, {hour:02}:{minute:02} UTC", month_name(month))
            }
            Yearly::Weekday { month, nth, weekday, at: (hour, minute) } => {
                let (nth, weekday) = (NTH[usize::from(nth) - 1], Weekday::Monday.nth_next(weekday));
                format!("the {nth} {weekday} of {}, {hour:02}:{minute:02} UTC", month_name(month))
            }
        }
    }
}

/// `May`.
pub fn month_name(month: u8) -> String {
    Month::try_from(month).map_or_else(|_| "a month".to_owned(), |month| month.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use time::macros::datetime;

    #[test]
    fn months_touch_every_weekday_and_every_part_of_day_and_month() {
        for year in 2024..2040 {
            let instants = MONTHS.map(|yearly| yearly.in_year(year).unwrap());
            let months: BTreeSet<u8> = instants.iter().map(|at| at.month().into()).collect();
            assert_eq!(months.len(), 12);
            let weekdays: BTreeSet<u8> =
                instants.iter().map(|at| at.weekday().number_days_from_monday()).collect();
            assert_eq!(weekdays.len(), 7, "{year}");
            let parts: BTreeSet<u8> = instants.iter().map(|at| at.hour() / 3).collect();
            assert_eq!(parts.len(), 8, "every three hours");
            let days: BTreeSet<u8> = instants.iter().map(|at| (at.day() - 1) / 7).collect();
            assert_eq!(days.len(), 5, "every week of a month");
        }
    }

    #[test]
    fn every_four_days_touch_every_month_whatever_the_interval_of_a_schedule() {
        for (begin, interval) in [(20_786, 1), (20_787, 7), (3, 1), (0, 3)] {
            let all: BTreeSet<World> =
                (0..4).flat_map(|turn| World::months_in_turn(begin + interval * turn)).collect();
            assert_eq!(all, World::months().into_iter().collect(), "{begin}, {interval}");
        }
    }

    #[test]
    fn a_clock_starts_at_the_next_such_moment() {
        let now = datetime!(2026-11-28 12:00 UTC);
        for (start, expect) in [
            (ClockStart::Days(3), datetime!(2026-12-01 12:00 UTC)),
            (ClockStart::MonthEnd, datetime!(2027-01-31 12:00 UTC)),
            (ClockStart::YearEnd, datetime!(2026-12-31 23:59:30 UTC)),
            (ClockStart::LeapDay, datetime!(2028-02-29 12:00 UTC)),
            (ClockStart::DaylightSaving, datetime!(2027-03-28 00:59:30 UTC)),
            (ClockStart::InMonth { month: 5 }, datetime!(2027-05-31 5:30 UTC)),
            (ClockStart::InMonth { month: 6 }, datetime!(2027-06-16 12:05 UTC)),
            (ClockStart::InMonth { month: 11 }, datetime!(2027-11-04 18:55 UTC)),
            (ClockStart::InMonth { month: 12 }, datetime!(2026-12-20 10:35 UTC)),
        ] {
            assert_eq!(start.instant(now), expect, "{start:?}");
        }
        assert_eq!(ClockStart::InMonth { month: 0 }.yearly(), ClockStart::InMonth { month: 12 }.yearly());
    }
}
