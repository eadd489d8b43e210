//! Waiting for a state instead of sleeping for a time. Says what it last saw when it gives up.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// Calls `f` until it answers `Ok`, for at most `within`. Panics with `what` and the last `Err`.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, mut f: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let deadline = Instant::now() + within;
    loop {
        match f().await {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("not within {within:?}: {what}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The same of a test without a runtime.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, mut f: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match f() {
            Ok(value) => return value,
            Err(last) if Instant::now() >= deadline => {
                panic!("not within {within:?}: {what}; last seen: {last}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}
