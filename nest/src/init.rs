//! The first process of an attempt's cell: it takes the steps, waits for the word, starts the program, and
//! ends whatever the program has left. Then it says so, and takes its namespaces down while the next attempt
//! runs: nothing of the attempt is left but at most 1 MiB of files in memory.

use crate::attempt::{End, NotRun};
use crate::cell::{CellSpec, Kind};
use crate::leaving::{LastLeaving, Leaving, left_in_memory};
use crate::program::{Start, start};
use crate::sys::{self, Interest, LaidOut, Prepared, Program, Side};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Who reads it starts the program.
const GO: &[u8] = b"G";
/// Begins what is said of an attempt that has ended; anything else is why it has not begun.
const ENDED: &str = "ended ";
/// Of what is said.
const LONGEST: usize = 2000;

/// A cell's first process, seen from the nest.
#[derive(Debug)]
pub(crate) struct Init {
    process: i32,
    control: UnixStream,
}

impl Init {
    /// Has a cell made for an attempt of its own, whose program waits for [`Init::go`].
    pub(crate) fn of_attempt(
        cell: &CellSpec<'_>,
        program: &Program,
        streams: [BorrowedFd<'_>; 3],
    ) -> Result<Self, NotRun> {
        debug_assert_eq!(cell.kind, Kind::Fresh);
        let steps = cell.steps();
        let prepared = Prepared::new(&steps);
        let laid_out = program.laid_out();
        let (control, theirs) = UnixStream::pair()?;
        match sys::clone(cell.flags()).map_err(NotRun::no_namespaces)? {
            Side::Parent { child } => Ok(Self { process: child, control }),
            Side::Child => {
                let [stdin, stdout, stderr] = streams.map(|stream| stream.as_raw_fd());
                sys::exit_now(live(&prepared, &laid_out, [stdin, stdout, stderr, theirs.as_raw_fd()]))
            }
        }
    }

    /// Starts the program. What became of that is said at its end.
    pub(crate) fn go(&self) {
        // Whether it still lives is seen when it is heard.
        let _ = (&self.control).write_all(GO);
    }

    /// Readable when the attempt has ended.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    pub(crate) fn process(&self) -> i32 {
        self.process
    }

    /// Ends the attempt, and every process of it.
    pub(crate) fn kill(&self) {
        sys::kill(self.process);
    }

    /// Waits for the end of the attempt's last process.
    pub(crate) fn ended(self, last: &mut LastLeaving) -> Result<End, NotRun> {
        let said = hear(&self.control)?;
        let Some(said) = said.strip_prefix(ENDED) else {
            let waited = sys::wait(self.process);
            if !said.is_empty() {
                return Err(NotRun::Failed(said));
            }
            // It was killed, and whatever ended it ended all others.
            let waited = waited.ok_or_else(|| NotRun::Failed("an attempt was lost".to_owned()))?;
            return Ok(End { exit_code: waited.exit_code, cpu_us: waited.cpu_us });
        };
        let mut numbers = said.split(' ').map(str::parse::<u64>);
        let (Some(Ok(exit_code)), Some(Ok(cpu_us)), Some(Ok(left))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(NotRun::Failed(format!("an attempt ended with `{said}`")));
        };
        last.replace(Leaving::Child(self.process), left)?;
        Ok(End { exit_code: exit_code as i32, cpu_us })
    }
}

fn hear(mut control: &UnixStream) -> io::Result<String> {
    let mut said = [0; LONGEST];
    match control.read(&mut said) {
        Ok(length) => Ok(String::from_utf8_lossy(&said[..length]).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// Whether the other end is there, which says no more.
fn is_silent(control: &UnixStream) -> bool {
    let said = sys::poll([Some((control.as_fd(), Interest::Readable))], Some(Duration::ZERO));
    matches!(said, Ok([false]))
}

/// The life of an attempt's first process.
fn live(steps: &Prepared<'_>, program: &LaidOut<'_>, kept: [i32; 4]) -> i32 {
    let Ok([streams @ .., control]) = sys::keep_only(kept) else { return 126 };
    let mut control = UnixStream::from(control);
    if let Err(why) = steps.take() {
        let _ = control.write_all(why.as_bytes());
        return 126;
    }
    // Whoever gave the word may have gone since, before this process was to end with it.
    if !matches!(control.read(&mut [0]), Ok(1)) || !is_silent(&control) {
        return 126;
    }
    let Ok(payload) = start(program, Start::Plainly) else { return 126 };
    drop(streams);
    let exit_code = loop {
        match sys::wait(-1) {
            Some(waited) if waited.process == payload => break waited.exit_code,
            Some(_) => {}
            None => return 126,
        }
    };
    sys::end_all_others();
    let said = format!("{ENDED}{exit_code} {} {}", sys::cpu_of_children(), left_in_memory());
    let _ = control.write_all(said.as_bytes());
    exit_code
}
