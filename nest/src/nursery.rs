//! Cells for attempts that a zygote forks: each is made, within the zygote's own, by the small process
//! that waits there for the zygote's end, so that the large one is copied once for each attempt and
//! takes none of the steps. The zygote forks into a cell by joining its namespaces.

use crate::attempt::NotRun;
use crate::cell::CellSpec;
use crate::leaving::{Leaving, left_in_memory};
use crate::program::{Start, start};
use crate::sys::{self, Interest, LaidOut, Prepared, Program, Side};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// What is said of a failure is cut after so many bytes.
pub(crate) const COMPLAINT: usize = 2000;
/// Asks for a cell.
const ASK: u8 = b'C';
/// Comes with a cell; anything else begins a complaint.
const CELL: u8 = b'C';
/// In the order in which they are joined, the one that is left out if it is shared last. Children are
/// born into the first, which the zygote itself joins; with the second come the rights to the others.
const NAMESPACES: [&str; 6] = ["pid", "user", "mnt", "ipc", "uts", "net"];
const MADE: &[u8] = b"made";
/// Has a cell emptied.
const EMPTY: &[u8] = b"E";

/// How cells are made: laid out before the process that makes them is forked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nursery<'a> {
    /// Where cells are asked for, until the process that makes them has taken it for its own.
    pub(crate) asked: RawFd,
    pub(crate) flags: u64,
    pub(crate) steps: &'a Prepared<'a>,
    pub(crate) shared_network: bool,
}

/// Starts a zygote in a new cell: with its control as descriptor [`flakefarm_nest::ZYGOTE_CONTROL_FD`],
/// and beside it what makes the cells of its attempts. Returns the cell's first process, which ends with it.
pub(crate) fn start_zygote(
    cell: &CellSpec<'_>,
    program: &Program,
    streams: [BorrowedFd<'_>; 3],
    theirs: BorrowedFd<'_>,
    nursery: &Nursery<'_>,
) -> Result<i32, NotRun> {
    let steps = cell.steps();
    let prepared = Prepared::new(&steps);
    let laid_out = program.laid_out();
    let filter = Start::zygote_filter();
    let (mut heard, said) = io::pipe()?;
    match sys::clone(cell.flags()).map_err(NotRun::no_namespaces)? {
        Side::Parent { child } => {
            drop(said);
            let mut made = Vec::new();
            heard.read_to_end(&mut made)?;
            if made == MADE {
                return Ok(child);
            }
            sys::wait(child);
            Err(NotRun::Failed(String::from_utf8_lossy(&made).into_owned()))
        }
        Side::Child => {
            let [stdin, stdout, stderr] = streams.map(|stream| stream.as_raw_fd());
            let kept = [stdin, stdout, stderr, theirs.as_raw_fd(), nursery.asked, said.as_raw_fd()];
            sys::exit_now(live_with_zygote(&prepared, &laid_out, &filter, kept, nursery))
        }
    }
}

/// The life of a zygote's first process.
fn live_with_zygote(
    steps: &Prepared<'_>,
    program: &LaidOut<'_>,
    filter: &[u8],
    kept: [i32; 6],
    nursery: &Nursery<'_>,
) -> i32 {
    let Ok([programs @ .., asked, said]) = sys::keep_only(kept) else { return 126 };
    let mut said = File::from(said);
    let taken = steps.take();
    let _ = said.write_all(taken.as_ref().map_or_else(|why| why.as_bytes(), |()| MADE));
    drop(said);
    if taken.is_err() {
        return 126;
    }
    let how = Start::AsZygote { control: flakefarm_nest::ZYGOTE_CONTROL_FD, filter };
    let Ok(payload) = start(program, how) else { return 126 };
    drop(programs);
    nursery.tend(&asked.into(), payload)
}

impl Nursery<'_> {
    /// Makes cells until `payload` ends or nobody asks any more. Returns the payload's exit code.
    pub(crate) fn tend(&self, owner: &UnixStream, payload: i32) -> i32 {
        let Ok(end) = sys::descriptor_of(payload) else { return 126 };
        loop {
            let interests = [owner.as_fd(), end.as_fd()].map(|fd| Some((fd, Interest::Readable)));
            let Ok([asked, ended]) = sys::poll(interests, None) else { return 126 };
            // Orphans, and cells that are done with.
            while !ended && sys::reap().is_some() {}
            if ended {
                return sys::wait(payload).map_or(126, |waited| waited.exit_code);
            }
            if asked && !matches!(self.answer(owner), Ok(true)) {
                return 126;
            }
        }
    }

    /// Whether there was a question.
    fn answer(&self, mut owner: &UnixStream) -> io::Result<bool> {
        if owner.read(&mut [0])? == 0 {
            return Ok(false);
        }
        if let Err(why) = self.make(owner) {
            owner.write_all(&why.as_bytes()[..why.len().min(COMPLAINT)])?;
        }
        Ok(true)
    }

    fn make(&self, owner: &UnixStream) -> Result<(), String> {
        let failed = |error: io::Error| format!("failed to make namespaces: {error}");
        let (mut heard, mut tell) = io::pipe().map_err(failed)?;
        let (own, nests) = UnixStream::pair().map_err(failed)?;
        match sys::clone(self.flags).map_err(failed)? {
            Side::Child => {
                let said = self.live(owner, &nests);
                let _ = tell.write_all(said.as_ref().map_or_else(|why| why.as_bytes(), |()| MADE));
                if said.is_err() {
                    sys::exit_now(1);
                }
                sys::exit_now(wait(own))
            }
            Side::Parent { .. } => {
                drop((tell, own, nests));
                let mut said = Vec::new();
                heard.read_to_end(&mut said).map_err(failed)?;
                match said.as_slice() {
                    MADE => Ok(()),
                    [] => Err("a cell ended while it was made".to_owned()),
                    why => Err(String::from_utf8_lossy(why).into_owned()),
                }
            }
        }
    }

    /// What a cell's first process does before it only waits: the attempt, which has its user, must
    /// not look into it.
    fn live(&self, owner: &UnixStream, nests: &UnixStream) -> Result<(), String> {
        let failed = |error: io::Error| format!("failed to hand a cell over: {error}");
        // Its maker is not, and who is not may not map its own user.
        sys::prctl(libc::PR_SET_DUMPABLE, 1).map_err(failed)?;
        self.steps.take()?;
        let count = NAMESPACES.len() - usize::from(self.shared_network);
        let mut files =
            vec![sys::descriptor_of(1).map_err(failed)?, nests.as_fd().try_clone_to_owned().map_err(failed)?];
        for name in &NAMESPACES[..count] {
            files.push(File::open(format!("/proc/self/ns/{name}")).map_err(failed)?.into());
        }
        let fds: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
        sys::prctl(libc::PR_SET_DUMPABLE, 0).map_err(failed)?;
        sys::send_descriptors(owner.as_fd(), CELL, &fds).map_err(failed)
    }
}

/// Waits, and lets the kernel reap what ends meanwhile, until all that has not ended is to end. Returns
/// the exit code.
fn wait(control: UnixStream) -> i32 {
    sys::reap_nobody();
    let Ok([control]) = sys::keep_only([control.as_raw_fd()]) else { return 126 };
    let mut control = UnixStream::from(control);
    if matches!(control.read(&mut [0]), Ok(1)) {
        sys::end_all_others();
        let _ = control.write_all(&left_in_memory().to_be_bytes());
    }
    0
}

/// The other end of a nursery: cells are asked for ahead, and taken.
#[derive(Debug)]
pub(crate) struct Cells {
    socket: UnixStream,
}

impl Cells {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket }
    }

    /// Has one made, meanwhile.
    pub(crate) fn ask(&mut self) -> io::Result<()> {
        self.socket.write_all(&[ASK])
    }

    /// The one that was asked for. The inner error is why there is none.
    pub(crate) fn take(&mut self) -> io::Result<Result<Cell, String>> {
        let mut bytes = [0; COMPLAINT];
        let (length, mut fds) = sys::receive_descriptors(self.socket.as_fd(), &mut bytes)?;
        if bytes[..length] == [CELL] && fds.len() > NAMESPACES.len() {
            let namespaces = fds.split_off(2);
            let control = fds.pop().expect("it was left").into();
            let first = fds.pop().expect("it was left");
            return Ok(Ok(Cell { first, control, namespaces }));
        }
        let why = String::from_utf8_lossy(&bytes[..length]);
        Ok(Err(if why.is_empty() { "nobody makes cells any more".to_owned() } else { why.into_owned() }))
    }
}

/// A cell that waits for its attempt, or has it.
#[derive(Debug)]
pub(crate) struct Cell {
    first: OwnedFd,
    control: UnixStream,
    namespaces: Vec<OwnedFd>,
}

impl Cell {
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = RawFd> {
        self.namespaces.iter().map(AsRawFd::as_raw_fd)
    }

    /// Has every process in it ended.
    pub(crate) fn empty(&self) {
        // One whose first process is gone is empty.
        let _ = (&self.control).write_all(EMPTY);
    }

    /// Waits until it is empty. Returns what is left, and how many bytes that has: too many, if it cannot be
    /// told.
    pub(crate) fn emptied(mut self) -> (Leaving, u64) {
        let mut left = [0; 8];
        let said = self.control.read_exact(&mut left);
        (Leaving::Other(self.first), said.map_or(u64::MAX, |()| u64::from_be_bytes(left)))
    }
}
