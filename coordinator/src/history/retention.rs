//! How long history is kept, layer by layer. Pure: the moment is passed in.

use super::collect::month_of;
use flakefarm_shared::UnixMicros;
use flakefarm_shared::samples::codec;
use serde::Serialize;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// How long each layer of history is kept; verdicts with their evidence are kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRetention {
    /// Points.
    pub points: Duration,
    /// Sums by hour.
    pub hourly: Duration,
    /// Sums by day.
    pub daily: Duration,
}

impl Default for HistoryRetention {
    fn default() -> Self {
        Self { points: DAY * 14, hourly: DAY * 90, daily: DAY * 400 }
    }
}

impl HistoryRetention {
    /// The first day whose hours are kept at `now`.
    pub fn first_hourly_day(&self, now: UnixMicros) -> i64 {
        day_before(now, self.hourly)
    }

    /// The first month, by its first day, whose days are kept at `now`: a month goes as a whole.
    pub fn first_daily_day(&self, now: UnixMicros) -> i64 {
        month_of(day_before(now, self.daily)).0
    }
}

fn day_before(now: UnixMicros, keep: Duration) -> i64 {
    let keep = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
    codec::day_of(now.saturating_sub(keep)).max(0)
}

/// What would be deleted, or was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Collected {
    /// Packs of hours.
    pub hourly_packs: u64,
    /// Packs of days.
    pub daily_packs: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_go_at_their_own_time() {
        let keep = HistoryRetention::default();
        let now = codec::day_start(20_512) + 5;
        assert_eq!(keep.first_hourly_day(now), 20_512 - 90);
        assert!(keep.first_daily_day(now) <= 20_512 - 400);
        assert_eq!(keep.first_daily_day(now), month_of(20_512 - 400).0);
        assert_eq!(keep.first_hourly_day(0), 0);
    }
}
