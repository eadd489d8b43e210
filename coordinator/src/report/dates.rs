//! Which dates a sweep's clocks stood at: what holds in May says nothing of November.

use super::values::date_time;
use crate::experiment::{Ledger, Standing, WorldsSeen};

use flakefarm_shared::{AttemptEnd, World};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use time::macros::format_description;
use time::{Month, OffsetDateTime, Weekday};

/// The dates, and the parts of the year and the week that none of them lies in. Nothing for a sweep
/// without shifted clocks.
pub(super) fn note(ledger: &Ledger, worlds: &WorldsSeen) -> Option<String> {
    let mut now: Option<OffsetDateTime> = None;
    let mut moved: BTreeMap<World, OffsetDateTime> = BTreeMap::new();
    for attempt in ledger.each_attempt() {
        let Standing::Ended(record) = attempt.standing else { continue };
        if !matches!(record.end, AttemptEnd::Completed) {
            continue;
        }
        let started = date_time(record.started_at);
        match record.treatment.world {
            World::Clock(start) if worlds.is_usable(record.treatment.world) => {
                moved.entry(record.treatment.world).or_insert_with(|| start.instant(started));
            }
            World::Plain => now = Some(now.map_or(started, |now| now.min(started))),
            _ => {}
        }
    }
    if moved.is_empty() {
        return None;
    }
    let mut moved: Vec<OffsetDateTime> = moved.into_values().collect();
    moved.sort();
    Some(words(now, &moved))
}

fn words(now: Option<OffsetDateTime>, moved: &[OffsetDateTime]) -> String {
    let day = format_description!(
        "[weekday repr:short] [day padding:none] [month repr:short] [year] [hour]:[minute]"
    );
    let shown = |at: &OffsetDateTime| at.format(&day).unwrap_or_default();
    let all: Vec<&OffsetDateTime> = now.iter().chain(moved).collect();
    let months: BTreeSet<u8> = all.iter().map(|at| at.month().into()).collect();
    let weekdays: BTreeSet<u8> = all.iter().map(|at| at.weekday().number_days_from_monday()).collect();
    let missing_months: Vec<String> = (1..=12)
        .filter(|month| !months.contains(month))
        .filter_map(|month| Some(Month::try_from(month).ok()?.to_string()))
        .collect();
    let missing_days: Vec<String> = (0..7)
        .filter(|day| !weekdays.contains(day))
        .map(|day| Weekday::Monday.nth_next(day).to_string())
        .collect();
    let mut text = format!(
        "dates covered (UTC): {}{}",
        now.map_or_else(String::new, |now| format!("{} (now), ", shown(&now))),
        moved.iter().map(shown).collect::<Vec<_>>().join(", ")
    );
    if !missing_months.is_empty() {
        let _infallible = write!(
            text,
            "; none in {} (three months take turns from day to day: four days' sweeps have all; so has \
             `--panel full`)",
            missing_months.join(", ")
        );
    }
    if !missing_days.is_empty() {
        let _infallible = write!(text, "; none on a {}", missing_days.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn what_is_covered_and_what_is_not_is_said() {
        let moved = [datetime!(2026-12-31 23:59:30 UTC), datetime!(2027-05-31 5:30 UTC)];
        assert_eq!(
            words(Some(datetime!(2026-11-28 12:00 UTC)), &moved),
            "dates covered (UTC): Sat 28 Nov 2026 12:00 (now), Thu 31 Dec 2026 23:59, Mon 31 May 2027 05:30; none in \
             January, February, March, April, June, July, August, September, October (three months take turns from \
             day to day: four days' sweeps have all; so has `--panel full`); none on a Tuesday, Wednesday, Friday, \
             Sunday"
        );
        let now = datetime!(2026-11-28 12:00 UTC);
        let months: Vec<OffsetDateTime> = World::months()
            .into_iter()
            .filter_map(|world| match world {
                World::Clock(start) => Some(start.instant(now)),
                _ => None,
            })
            .collect();
        assert!(!words(Some(now), &months).contains("none in"), "{}", words(Some(now), &months));
    }
}
