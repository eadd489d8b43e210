//! Being told to stop: the first signal ends cleanly, the second exits now. That nobody reads what is
//! said any more counts as the first.

use crate::exit::Exit;
use crate::say;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGINT, SIGTERM or SIGHUP. At the second one the process ends at once.
pub(crate) fn stop_on_signal() -> std::io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let first = stop.clone();
    tokio::spawn(async move {
        let mut unread = false;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
                () = say::reader_gone().cancelled(), if !unread => {
                    unread = true;
                    first.cancel();
                    continue;
                }
            }
            if first.is_cancelled() && !unread {
                std::process::exit(Exit::Interrupted as i32);
            }
            unread = false;
            first.cancel();
        }
    });
    Ok(stop)
}
