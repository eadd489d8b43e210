//! Being told to stop: the first signal ends cleanly, the second one leaves now, removing what would
//! otherwise be left behind, within some seconds; the third ends the process at once. That nobody reads
//! what is said any more tells it to stop as well, and so does a worker's /drain: a signal after that is the first.

use crate::exit::Exit;
use crate::say;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// For a process that was told twice to leave.
const HURRY: Duration = Duration::from_secs(5);

/// What this process has been told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    /// Once or more.
    pub(crate) stop: CancellationToken,
    /// Twice: leave now.
    pub(crate) hurry: CancellationToken,
}

/// A token that is cancelled at the first SIGINT, SIGTERM or SIGHUP.
pub(crate) fn stop_on_signal() -> std::io::Result<CancellationToken> {
    Ok(watch()?.stop)
}

/// Watches for SIGINT, SIGTERM and SIGHUP. After the second one the process ends within five seconds,
/// whatever it does.
pub(crate) fn watch() -> std::io::Result<Told> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let told = Told::default();
    let Told { stop, hurry } = told.clone();
    tokio::spawn(async move {
        let (mut signals, mut unread) = (0_u32, false);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                () = late(&hurry) => std::process::exit(Exit::Interrupted as i32),
                () = say::reader_gone().cancelled(), if !unread => {
                    unread = true;
                    stop.cancel();
                    continue;
                }
            }
            signals += 1;
            match signals {
                // It may have been told otherwise: by a worker's /drain, or by nobody reading.
                1 => stop.cancel(),
                2 => hurry.cancel(),
                _ => std::process::exit(Exit::Interrupted as i32),
            }
        }
    });
    Ok(told)
}

async fn late(hurry: &CancellationToken) {
    hurry.cancelled().await;
    tokio::time::sleep(HURRY).await;
}
