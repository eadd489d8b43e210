//! Which coordinator runs a loop: the one that holds the loop's lease in the database. Another takes it
//! over when the holder gives it up, or has not renewed it for its duration. A holder that was paused
//! for longer may take one more step before it notices; steps are idempotent.

use super::trouble::Step;
use super::{Assignment, Coordinator};
use flakefarm_shared::metrics::catalogue::LEASE_HELD;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long a lease holds without being renewed: what a coordinator that was killed costs the farm.
const LEASE: Duration = Duration::from_secs(6);
/// Between two renewals, or two tries to take it.
const RENEWAL: Duration = Duration::from_secs(2);

/// Runs `work` whenever this coordinator holds the lease `name`, until `stop`. An embedded coordinator,
/// which works on a sweep of its own, needs none.
pub(super) async fn while_leading<F>(
    coordinator: Coordinator,
    name: &'static str,
    stop: CancellationToken,
    work: impl Fn(Coordinator, CancellationToken) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    if matches!(coordinator.assignment, Assignment::OneSweep(_)) {
        return work(coordinator, stop).await;
    }
    let holder = &coordinator.holder;
    while !stop.is_cancelled() {
        match coordinator.db.take_lease(name, holder, LEASE).await {
            Ok(true) => {
                info!(lease = name, "this coordinator leads");
                LEASE_HELD.set(&[name], 1.0);
                let (ending, ended) = (stop.child_token(), CancellationToken::new());
                let working = tokio::spawn({
                    let work = work(coordinator.clone(), ending.clone());
                    let at_the_end = ended.clone().drop_guard();
                    async move {
                        let _at_the_end = at_the_end;
                        work.await;
                    }
                });
                keep(&coordinator, name, &stop, &ended).await;
                ending.cancel();
                LEASE_HELD.set(&[name], 0.0);
                if let Err(panic) = working.await {
                    warn!(lease = name, error = %panic, "a coordinator loop ended badly");
                }
            }
            Ok(false) => {}
            Err(error) => {
                coordinator.note(Step::Leading, &Err(error.into()));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RENEWAL) => {}
            () = stop.cancelled() => {}
        }
    }
    // The next leader need not wait; if this fails, it waits.
    if let Err(error) = coordinator.db.release_lease(name, holder).await {
        warn!(lease = name, error = %error, "the lease was not given up; it runs out by itself");
    }
}

/// Renews the lease until it is lost, the work ends, or the coordinator is told to stop.
async fn keep(
    coordinator: &Coordinator,
    name: &'static str,
    stop: &CancellationToken,
    ended: &CancellationToken,
) {
    let mut renewed = Instant::now();
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEWAL) => {}
            () = stop.cancelled() => return,
            () = ended.cancelled() => return,
        }
        let asked = Instant::now();
        match coordinator.db.take_lease(name, &coordinator.holder, LEASE).await {
            Ok(true) => {
                renewed = asked;
                coordinator.note(Step::Leading, &Ok(()));
            }
            Ok(false) => {
                warn!(lease = name, "another coordinator leads now");
                return;
            }
            Err(error) => {
                coordinator.note(Step::Leading, &Err(error.into()));
                if renewed.elapsed() > LEASE {
                    return;
                }
            }
        }
    }
}
