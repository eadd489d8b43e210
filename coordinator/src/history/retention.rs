//! How long history is kept, layer by layer. Pure: the moment is passed in.

use crate::calendar::month_of;
use flakefarm_shared::UnixMicros;
use flakefarm_shared::samples::codec;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

/// How long each layer of history is kept; verdicts with their evidence are kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryRetention {
    /// Points.
    pub points: Duration,
    /// Sums by hour.
    pub hourly: Duration,
    /// Sums by day; also failures, flips and runs of CI.
    pub daily: Duration,
    /// Jobs, snapshots and outputs of sweeps that are over, beyond what their reports show.
    pub artifacts: Duration,
    /// Blobs that nothing refers to, counted from when they were written.
    pub grace: Duration,
}

impl Default for HistoryRetention {
    fn default() -> Self {
        Self { points: DAY * 14, hourly: DAY * 90, daily: DAY * 400, artifacts: DAY * 90, grace: DAY }
    }
}

/// The least that points are kept: until they are summed up, a weekend later if must be.
const LEAST_POINTS: Duration = Duration::from_secs(4 * 86_400);
/// The least that blobs are left alone: longer than from a blob to the row that refers to it.
const LEAST_GRACE: Duration = Duration::from_secs(3_600);

impl HistoryRetention {
    /// The same if it makes sense, else why it does not.
    pub fn checked(self) -> Result<Self, String> {
        let days = |keep: Duration| keep.as_secs() / 86_400;
        if self.points < LEAST_POINTS {
            return Err(format!(
                "points are kept for {} days or more, until they are summed up",
                days(LEAST_POINTS)
            ));
        }
        if self.hourly < self.points || self.daily < self.hourly {
            return Err(format!(
                "each layer is kept as long as the finer one or longer: points {} days, hours {}, days {}",
                days(self.points),
                days(self.hourly),
                days(self.daily)
            ));
        }
        if self.grace < LEAST_GRACE {
            return Err("blobs are left alone for an hour or more after they were written".to_owned());
        }
        Ok(self)
    }

    /// Failures, flips and runs of CI are kept from here on at `now`.
    pub fn first_evidence(&self, now: UnixMicros) -> UnixMicros {
        codec::day_start(self.first_daily_day(now))
    }

    /// Sweeps that were over before this keep no more than their reports at `now`.
    pub fn first_artifact(&self, now: UnixMicros) -> UnixMicros {
        before(now, self.artifacts)
    }

    /// Blobs that were written later are left alone at `now`.
    pub fn first_old_blob(&self, now: UnixMicros) -> UnixMicros {
        before(now, self.grace)
    }

    /// The first day whose hours are kept at `now`.
    pub fn first_hourly_day(&self, now: UnixMicros) -> i64 {
        day_before(now, self.hourly)
    }

    /// The first month, by its first day, whose days are kept at `now`: a month goes as a whole.
    pub fn first_daily_day(&self, now: UnixMicros) -> i64 {
        month_of(day_before(now, self.daily)).0
    }
}

fn before(now: UnixMicros, keep: Duration) -> UnixMicros {
    now.saturating_sub(i64::try_from(keep.as_micros()).unwrap_or(i64::MAX))
}

fn day_before(now: UnixMicros, keep: Duration) -> i64 {
    codec::day_of(before(now, keep)).max(0)
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
        assert_eq!(keep.first_old_blob(now), now - 86_400_000_000);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let keep = HistoryRetention::default();
        assert_eq!(keep.checked(), Ok(keep));
        assert!(HistoryRetention { points: DAY, ..keep }.checked().unwrap_err().contains("4 days"));
        assert!(HistoryRetention { hourly: DAY * 10, ..keep }.checked().is_err());
        assert!(HistoryRetention { daily: DAY * 80, ..keep }.checked().is_err());
        assert!(HistoryRetention { grace: Duration::ZERO, ..keep }.checked().is_err());
    }
}
