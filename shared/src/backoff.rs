//! Pauses before something that failed is tried again: the one helper for it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// Pauses of 0.5 s doubling to the longest, each shortened at random by up to a half, so that a farm
/// does not return in step. What held for half a minute starts anew.
#[derive(Debug)]
pub struct Backoff {
    longest: Duration,
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(500);
    const STABLE: Duration = Duration::from_secs(30);

    /// Pauses of at most `longest`.
    pub fn up_to(longest: Duration) -> Self {
        Self { longest, failures: 0, up_since: None }
    }

    /// It works, from now on.
    pub fn connected(&mut self) {
        self.up_since = Some(Instant::now());
    }

    /// How long to wait now.
    pub fn pause(&mut self) -> Duration {
        if self.up_since.take().is_some_and(|since| since.elapsed() >= Self::STABLE) {
            self.failures = 0;
        }
        // The standard library keys its hashers at random: enough for jitter.
        let dice = RandomState::new().build_hasher().finish();
        let pause = jittered(self.failures, self.longest, dice);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

fn jittered(failures: u32, longest: Duration, dice: u64) -> Duration {
    let full = Backoff::FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(longest);
    let fraction = 0.5 + 0.5 * (dice as f64 / u64::MAX as f64);
    full.mul_f64(fraction).max(Backoff::FIRST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let longest = Duration::from_secs(30);
        let check = |failures, dice, expect| {
            assert_eq!(jittered(failures, longest, dice), expect, "{failures} {dice}");
        };
        check(0, 0, Backoff::FIRST);
        check(0, u64::MAX, Backoff::FIRST);
        check(3, u64::MAX, Duration::from_secs(4));
        check(3, 0, Duration::from_secs(2));
        check(u32::MAX, u64::MAX, longest);
        check(u32::MAX, 0, longest / 2);
    }
}
