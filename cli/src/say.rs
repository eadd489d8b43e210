//! Standard error, a line at a time. A reader that has gone away (`flakefarm sweep 2>&1 | head`) is no
//! error: what is still under way is told to end.

use std::io::Write;
use std::sync::OnceLock;
use tokio_util::sync::CancellationToken;

/// Writes a line for people.
pub(crate) fn say(line: impl AsRef<str>) {
    if writeln!(std::io::stderr().lock(), "{}", line.as_ref()).is_err() {
        reader_gone().cancel();
    }
}

/// Cancelled once nobody reads what this program says.
pub(crate) fn reader_gone() -> &'static CancellationToken {
    static GONE: OnceLock<CancellationToken> = OnceLock::new();
    GONE.get_or_init(CancellationToken::new)
}
