//! How often a token may call: a bucket of calls that fills with time. Kept per coordinator.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// Calls that a token may make at once after a rest.
const BURST: f64 = 200.0;
/// Calls a second that it may go on with.
const PER_SECOND: f64 = 50.0;
/// Tokens that are remembered; full buckets are forgotten first.
const TOKENS: usize = 10_000;

/// The buckets of all tokens. Cloning is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates(Arc<Mutex<HashMap<String, Bucket>>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    calls: f64,
    at: Instant,
}

impl Bucket {
    fn filled(self, now: Instant) -> f64 {
        (self.calls + now.duration_since(self.at).as_secs_f64() * PER_SECOND).min(BURST)
    }
}

impl Rates {
    /// Takes one call of a token's; if there is none left, the seconds until there is.
    pub(super) fn take(&self, token: &str) -> Option<u64> {
        self.take_at(token, Instant::now())
    }

    fn take_at(&self, token: &str, now: Instant) -> Option<u64> {
        let mut buckets = self.0.lock().expect("nobody panics while holding the lock");
        if buckets.len() >= TOKENS {
            buckets.retain(|_, bucket| bucket.filled(now) < BURST);
        }
        let known = buckets.get(token).map_or(BURST, |bucket| bucket.filled(now));
        let left = known - 1.0;
        if left < 0.0 {
            return Some(1);
        }
        buckets.insert(token.to_owned(), Bucket { calls: left, at: now });
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_token_that_calls_too_often_waits_and_no_other_does() {
        let (rates, now) = (Rates::default(), Instant::now());
        for _ in 0..200 {
            assert_eq!(rates.take_at("busy", now), None);
        }
        assert_eq!(rates.take_at("busy", now), Some(1));
        assert_eq!(rates.take_at("other", now), None);
        let later = now + Duration::from_secs(1);
        for _ in 0..50 {
            assert_eq!(rates.take_at("busy", later), None);
        }
        assert_eq!(rates.take_at("busy", later), Some(1));
    }
}
