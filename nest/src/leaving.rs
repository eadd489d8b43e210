//! Cells that are empty but not gone yet: their first process takes the namespaces down while the next
//! attempt runs. At most one of each kind, and only with little memory left in it, so that they cannot
//! gather.

use crate::sys::{self, Interest};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// With more memory than this in files, a cell is waited for to its end: the next attempt may need it.
const LITTLE: u64 = 1 << 20;
/// Where an attempt's files are in memory.
const IN_MEMORY: [&CStr; 4] = [c"/work", c"/tmp", c"/run", c"/dev/shm"];

/// Bytes of memory that files and shared memory of this cell have, when no process has any.
pub(crate) fn left_in_memory() -> u64 {
    IN_MEMORY.iter().map(|place| sys::bytes_used(place)).sum::<u64>() + sys::bytes_of_shared_memory()
}

/// The first process of a cell that is empty.
#[derive(Debug)]
pub(crate) enum Leaving {
    /// A child of this process.
    Child(i32),
    /// Somebody else's, by a descriptor that tells of its end.
    Other(OwnedFd),
}

impl Leaving {
    /// Waits until it has gone.
    fn gone(self) -> io::Result<()> {
        match self {
            Leaving::Child(process) => {
                sys::wait(process);
                Ok(())
            }
            Leaving::Other(end) => sys::poll([Some((end.as_fd(), Interest::Readable))], None).map(drop),
        }
    }
}

/// The one that need not have gone yet.
#[derive(Debug, Default)]
pub(crate) struct LastLeaving(Option<Leaving>);

impl LastLeaving {
    /// Waits for the one before, and for this one if so many bytes left in it are not little.
    pub(crate) fn replace(&mut self, leaving: Leaving, left: u64) -> io::Result<()> {
        if let Some(before) = self.0.take() {
            before.gone()?;
        }
        if left > LITTLE {
            return leaving.gone();
        }
        self.0 = Some(leaving);
        Ok(())
    }
}
