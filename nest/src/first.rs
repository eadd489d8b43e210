//! The first process of a cell: it takes the steps, waits for the word, starts the program, and ends
//! whatever the program has left. Then it says so, and takes its namespaces down while the next attempt
//! runs: nothing of the attempt is left but files in memory, and no more of them than hurts nobody.

use crate::cell::{Kind, Plan};
use crate::nursery::Nursery;
use crate::serve::NotRun;
use crate::sys::{self, Interest, LaidOut, Prepared, Program, Side};
use flakefarm_nest::{Attempt, HOME};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub(crate) const HASH_SEED: &str = "PYTHONHASHSEED";
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Who reads it starts the program.
const GO: &[u8] = b"G";
/// Said of a zygote's cell once it is made.
const MADE: &[u8] = b"made";
/// Begins what is said of an attempt that has ended; anything else is why it has not begun.
const ENDED: &str = "ended ";
/// Of what is said.
const LONGEST: usize = 2000;
/// With more memory than this in files, a cell is waited for to its end: the next attempt may need it.
const LITTLE: u64 = 1 << 20;
/// Where an attempt's files are in memory.
const IN_MEMORY: [&std::ffi::CStr; 4] = [c"/work", c"/tmp", c"/run", c"/dev/shm"];

/// A cell's first process, seen from the nest.
#[derive(Debug)]
pub(crate) struct First {
    process: i32,
    control: UnixStream,
}

/// How an attempt ended, and all of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit_code: i32,
    pub(crate) cpu_us: u64,
}

/// Cells that are empty but not gone yet: one at most, so that they cannot gather.
#[derive(Debug, Default)]
pub(crate) struct Leaving(Option<i32>);

impl First {
    /// Has a cell made for an attempt of its own, whose program waits for [`First::go`].
    pub(crate) fn of_attempt(
        plan: &Plan<'_>,
        program: &Program,
        streams: [BorrowedFd<'_>; 3],
    ) -> Result<Self, NotRun> {
        debug_assert_eq!(plan.kind, Kind::Fresh);
        let steps = plan.steps();
        let prepared = Prepared::new(&steps);
        let laid_out = program.laid_out();
        let (control, theirs) = UnixStream::pair()?;
        match sys::clone(plan.flags()).map_err(no_namespaces)? {
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
    pub(crate) fn ended(self, leaving: &mut Leaving) -> Result<End, NotRun> {
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
        leaving.add(self.process, left);
        Ok(End { exit_code: exit_code as i32, cpu_us })
    }
}

impl Leaving {
    fn add(&mut self, process: i32, left: u64) {
        if let Some(before) = self.0.take() {
            sys::wait(before);
        }
        if is_little(left) {
            self.0 = Some(process);
        } else {
            sys::wait(process);
        }
    }
}

/// Whether a cell with so many bytes left need not be waited for.
pub(crate) fn is_little(left: u64) -> bool {
    left <= LITTLE
}

/// Starts a zygote in a new cell: with its control as descriptor [`flakefarm_nest::ZYGOTE_CONTROL_FD`],
/// and beside it what makes the cells of its attempts. Returns the cell's first process, which ends with it.
pub(crate) fn start_zygote(
    plan: &Plan<'_>,
    program: &Program,
    streams: [BorrowedFd<'_>; 3],
    theirs: BorrowedFd<'_>,
    nursery: &Nursery<'_>,
) -> Result<i32, NotRun> {
    let steps = plan.steps();
    let prepared = Prepared::new(&steps);
    let laid_out = program.laid_out();
    let (control, said) = UnixStream::pair()?;
    match sys::clone(plan.flags()).map_err(no_namespaces)? {
        Side::Parent { child } => {
            drop(said);
            match hear(&control)? {
                made if made.as_bytes() == MADE => Ok(child),
                why => {
                    sys::wait(child);
                    Err(NotRun::Failed(why))
                }
            }
        }
        Side::Child => {
            let [stdin, stdout, stderr] = streams.map(|stream| stream.as_raw_fd());
            let kept = [stdin, stdout, stderr, theirs.as_raw_fd(), nursery.asked, said.as_raw_fd()];
            sys::exit_now(live_with_zygote(&prepared, &laid_out, kept, nursery))
        }
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
    if let Err(why) = take(steps) {
        let _ = control.write_all(why.as_bytes());
        return 126;
    }
    // Whoever gave the word may have gone since, before this process was to end with it.
    if !matches!(control.read(&mut [0]), Ok(1)) || !is_silent(&control) {
        return 126;
    }
    let Ok(payload) = start(program, None) else { return 126 };
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

/// The life of a zygote's first process.
fn live_with_zygote(
    steps: &Prepared<'_>,
    program: &LaidOut<'_>,
    kept: [i32; 6],
    nursery: &Nursery<'_>,
) -> i32 {
    let Ok([programs @ .., asked, said]) = sys::keep_only(kept) else { return 126 };
    let mut said = UnixStream::from(said);
    let taken = take(steps);
    let _ = said.write_all(taken.as_ref().map_or_else(|why| why.as_bytes(), |()| MADE));
    drop(said);
    if taken.is_err() {
        return 126;
    }
    let Ok(payload) = start(program, Some(flakefarm_nest::ZYGOTE_CONTROL_FD)) else { return 126 };
    drop(programs);
    nursery.tend(&asked.into(), payload)
}

/// Starts the program; it finds the three streams, and `handed` if there is one.
fn start(program: &LaidOut<'_>, handed: Option<i32>) -> io::Result<i32> {
    // Or the program could look into this process, which has its user. Its own memory, when it has
    // become that program, it may look into as ever.
    sys::prctl(libc::PR_SET_DUMPABLE, 0)?;
    sys::clone_to_become(&|| {
        sys::default_signals();
        sys::new_session();
        if let Some(fd) = handed {
            sys::hand_on(fd);
        }
        let why = io::Error::from_raw_os_error(program.execute()).to_string();
        sys::complain(&[b"flakefarm: cannot run `", program.name(), b"`: ", why.as_bytes(), b"\n"]);
        127
    })
}

/// The error is what has failed, in a sentence.
pub(crate) fn take(steps: &Prepared<'_>) -> Result<(), String> {
    steps
        .take()
        .map_err(|(purpose, code)| format!("failed to {purpose}: {}", io::Error::from_raw_os_error(code)))
}

/// Bytes of memory that files and shared memory of this cell have, when no process has any.
pub(crate) fn left_in_memory() -> u64 {
    IN_MEMORY.iter().map(|place| sys::bytes_used(place)).sum::<u64>() + sys::bytes_of_shared_memory()
}

fn no_namespaces(error: io::Error) -> NotRun {
    NotRun::Failed(format!("failed to make namespaces: {error}"))
}

/// The variables of an attempt, over the nest's own.
pub(crate) fn variables(attempt: &Attempt, hash_seed: Option<u32>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = std::env::vars().collect();
    all.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    all.insert("HOME".to_owned(), HOME.to_owned());
    if let Some(seed) = hash_seed {
        all.entry(HASH_SEED.to_owned()).or_insert_with(|| seed.to_string());
    }
    all.extend(attempt.variables.clone());
    all
}

/// A program as it will be found inside, by the PATH that it is given.
pub(crate) fn program(argv: &[String], variables: &BTreeMap<String, String>) -> Result<Program, NotRun> {
    let text =
        |text: String| CString::new(text).map_err(|_| NotRun::Failed("a text with NUL in it".to_owned()));
    let name = argv.first().ok_or_else(|| NotRun::Failed("no program to run".to_owned()))?;
    let candidates = if name.contains('/') {
        vec![name.clone()]
    } else {
        let path = variables.get("PATH").map_or(PATH, String::as_str);
        path.split(':').map(|directory| format!("{directory}/{name}")).collect()
    };
    Ok(Program::new(
        candidates.into_iter().map(text).collect::<Result<_, _>>()?,
        argv.iter().cloned().map(text).collect::<Result<_, _>>()?,
        variables.iter().map(|(name, value)| text(format!("{name}={value}"))).collect::<Result<_, _>>()?,
    ))
}
