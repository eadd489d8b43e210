//! Serving: one attempt after the other, from its start to the end of its last process. What it
//! writes is passed on as it comes; nothing is kept of one attempt for the next but the zygotes.

use crate::cell::{Kind, Plan};
use crate::memory::{self, Keeper};
use crate::nursery::Nursery;
use crate::sys::{self, Interest, Prepared, Program, Side};
use crate::wire::{Heard, Wire};
use crate::zygote::Zygotes;
use flakefarm_nest::{Attempt, Ended, HOME, SetUp, Tell};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub(crate) const HASH_SEED: &str = "PYTHONHASHSEED";
/// As much as a pipe holds.
const PIECE: usize = 64 << 10;
/// What an attempt writes is passed on together with what it writes within this time, or up to its end:
/// telling the owner wakes several processes on the way.
const GATHER: Duration = Duration::from_millis(10);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why an attempt has no end.
#[derive(Debug)]
pub(crate) enum NotRun {
    /// Something of ours failed.
    Failed(String),
    /// It cannot be forked; as a fresh attempt it may well run.
    NotForked(String),
    /// The owner has gone.
    Abandoned,
}

impl From<io::Error> for NotRun {
    fn from(error: io::Error) -> Self {
        NotRun::Failed(error.to_string())
    }
}

/// What attempts of one nest have in common.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) tree: &'static str,
    pub(crate) shared_network: bool,
    keeper: Option<Keeper>,
    capabilities: u64,
}

impl World {
    pub(crate) fn plan(&self, kind: Kind, attempt: &Attempt) -> Plan<'_> {
        Plan {
            kind,
            tree: self.tree,
            scratch_bytes: attempt.scratch_bytes,
            pids: attempt.pids,
            shared_network: self.shared_network,
            capabilities: self.capabilities,
        }
    }
}

/// Serves until the owner goes. Returns the exit code of the process.
pub(crate) fn serve(mut wire: Wire, set_up: &SetUp, tree: &'static str, keeper: Option<Keeper>) -> i32 {
    let capabilities = sys::capabilities();
    let world = World { tree, shared_network: set_up.shared_network, keeper, capabilities };
    let mut zygotes = Zygotes::default();
    if wire.tell(&Tell::Ready).is_err() {
        return 0;
    }
    loop {
        let tell = match wire.next_attempt() {
            Ok(Some((attempt, input))) => match run(&mut wire, &world, &mut zygotes, &attempt, input) {
                Ok(ended) => Tell::Ended(ended),
                Err(NotRun::Failed(why)) => Tell::Failed(why),
                Err(NotRun::NotForked(why)) => Tell::NotForked(why),
                Err(NotRun::Abandoned) => return 0,
            },
            Ok(None) => return 0,
            Err(error) => Tell::Failed(error.to_string()),
        };
        if wire.tell(&tell).is_err() {
            return 0;
        }
    }
}

/// An attempt that has started, by how its end is heard of.
enum Running<'a> {
    Own { first: i32, end: OwnedFd },
    Forked { zygotes: &'a mut Zygotes, turn: usize },
}

fn run(
    wire: &mut Wire,
    world: &World,
    zygotes: &mut Zygotes,
    attempt: &Attempt,
    input: Vec<u8>,
) -> Result<Ended, NotRun> {
    let (stdin, to_stdin) = io::pipe()?;
    let (from_stdout, stdout) = io::pipe()?;
    let (from_stderr, stderr) = io::pipe()?;
    sys::set_nonblocking(to_stdin.as_fd())?;
    let ended_before = world.keeper.as_ref().map_or(0, Keeper::ended_so_far);
    let inside = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let mut running = match &attempt.fork {
        None => {
            let plan = world.plan(Kind::Fresh, attempt);
            let program = program(&attempt.argv, &variables(attempt, None))?;
            let first = start(&plan, &program, inside.map(|fd| fd.as_raw_fd()), None)?;
            Running::Own { first, end: sys::descriptor_of(first)? }
        }
        Some(fork) => {
            let turn = zygotes.fork(wire, world, attempt, fork, inside)?;
            wire.put(&Tell::Forked);
            Running::Forked { zygotes, turn }
        }
    };
    drop((stdin, stdout, stderr));
    let pipes =
        Pipes { to_stdin: Some(to_stdin), input, written: 0, out: Some(from_stdout), err: Some(from_stderr) };
    let watched = match &world.keeper {
        Some(Keeper::Nest) => Some(attempt.memory_bytes),
        Some(Keeper::Kernel(_)) | None => None,
    };
    let overrun = attend(wire, &mut running, pipes, watched)?;
    let (exit_code, cpu_us) = match running {
        Running::Own { first, .. } => {
            let waited = sys::wait(first).ok_or_else(|| NotRun::Failed("an attempt was lost".to_owned()))?;
            (waited.exit_code, waited.cpu_us)
        }
        Running::Forked { zygotes, turn } => zygotes.ended(turn)?,
    };
    let ended_since = world.keeper.as_ref().map_or(0, Keeper::ended_so_far) > ended_before;
    Ok(Ended { exit_code, out_of_memory: overrun || ended_since, cpu_us })
}

struct Pipes {
    to_stdin: Option<PipeWriter>,
    input: Vec<u8>,
    written: usize,
    out: Option<PipeReader>,
    err: Option<PipeReader>,
}

/// Passes on what the attempt writes until all of it has ended. Says whether its memory overran.
fn attend(
    wire: &mut Wire,
    running: &mut Running<'_>,
    mut pipes: Pipes,
    watched: Option<u64>,
) -> Result<bool, NotRun> {
    let mut overrun = false;
    let mut over = false;
    let mut piece = vec![0; PIECE];
    let mut looks_at = Instant::now() + GATHER;
    while !over || pipes.out.is_some() || pipes.err.is_some() {
        let gathers = if over { Duration::ZERO } else { looks_at.saturating_duration_since(Instant::now()) };
        let looks = gathers.is_zero();
        if looks && !over {
            wire.flush().map_err(|_| NotRun::Abandoned)?;
        }
        let end = match &*running {
            Running::Own { end, .. } => end.as_fd(),
            Running::Forked { zygotes, turn } => zygotes.control(*turn),
        };
        let patience =
            [(!looks).then_some(gathers), watched.map(|_| memory::LOOK)].into_iter().flatten().min();
        let ready = sys::poll(
            [
                Some((wire.asked(), Interest::Readable)),
                pipes.out.as_ref().filter(|_| looks).map(|pipe| (pipe.as_fd(), Interest::Readable)),
                pipes.err.as_ref().filter(|_| looks).map(|pipe| (pipe.as_fd(), Interest::Readable)),
                pipes.to_stdin.as_ref().map(|pipe| (pipe.as_fd(), Interest::Writable)),
                (!over).then_some((end, Interest::Readable)),
            ],
            patience,
        )?;
        let [asked, wrote, complained, reads, ended] = ready;
        let mut most = 0;
        if wrote {
            most = pass_on(wire, &mut pipes.out, &mut piece, Tell::Output)?;
        }
        if complained {
            most = most.max(pass_on(wire, &mut pipes.err, &mut piece, Tell::Errors)?);
        }
        if (wrote || complained) && !over {
            wire.flush().map_err(|_| NotRun::Abandoned)?;
            // Who has filled a pipe waits.
            if most < PIECE {
                looks_at = Instant::now() + GATHER;
            }
        }
        if reads {
            feed(&mut pipes);
        }
        if ended {
            over = true;
            pipes.to_stdin = None;
            if let Running::Forked { zygotes, turn } = running {
                zygotes.end_cell(*turn);
            }
        }
        if asked {
            match wire.hear()? {
                Heard::Nothing => {}
                Heard::Kill => kill(running),
                Heard::Gone => return Err(NotRun::Abandoned),
            }
        }
        if let (Some(limit), Running::Own { first, .. }, false) = (watched, &running, over) {
            overrun |= memory::enforce(*first, limit);
        }
    }
    Ok(overrun)
}

fn kill(running: &mut Running<'_>) {
    match running {
        Running::Own { first, .. } => sys::kill(*first),
        Running::Forked { zygotes, turn } => zygotes.kill(*turn),
    }
}

/// Returns how much there was.
fn pass_on(
    wire: &mut Wire,
    pipe: &mut Option<PipeReader>,
    piece: &mut [u8],
    tell: fn(Vec<u8>) -> Tell,
) -> Result<usize, NotRun> {
    let Some(reader) = pipe else { return Ok(0) };
    let length = reader.read(piece)?;
    if length == 0 {
        *pipe = None;
    } else {
        wire.put(&tell(piece[..length].to_vec()));
    }
    Ok(length)
}

/// A program that does not read its input is no error.
fn feed(pipes: &mut Pipes) {
    let Some(pipe) = &mut pipes.to_stdin else { return };
    match pipe.write(&pipes.input[pipes.written..]) {
        Ok(length) if length > 0 => pipes.written += length,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Ok(_) | Err(_) => pipes.to_stdin = None,
    }
    if pipes.written == pipes.input.len() {
        pipes.to_stdin = None;
    }
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

/// Starts `program` in a new cell; a zygote with its control and with what makes cells for its
/// attempts. Returns the cell's first process, which ends with it.
pub(crate) fn start(
    plan: &Plan<'_>,
    program: &Program,
    inside: [i32; 3],
    zygote: Option<(i32, Nursery<'_>)>,
) -> Result<i32, NotRun> {
    let steps = plan.steps();
    let prepared = Prepared::new(&steps);
    let laid_out = program.laid_out();
    let (mut trouble, mut tell_trouble) = io::pipe()?;
    let first = match sys::clone(plan.flags()).map_err(|error| failed("make namespaces", &error))? {
        Side::Parent { child } => child,
        Side::Child => {
            if let Err((purpose, code)) = prepared.take() {
                let why = failed_text(purpose, &io::Error::from_raw_os_error(code));
                // The reader knows of trouble by the silence after it, too.
                let _ = tell_trouble.write_all(why.as_bytes());
                sys::exit_now(1);
            }
            drop((trouble, tell_trouble));
            sys::exit_now(live(&laid_out, inside, zygote))
        }
    };
    drop(tell_trouble);
    let mut why = String::new();
    trouble.read_to_string(&mut why)?;
    if why.is_empty() {
        return Ok(first);
    }
    sys::wait(first);
    Err(NotRun::Failed(why))
}

/// The life of a cell's first process: it starts the program, waits for whatever ends, and ends with
/// the program, and the cell with it.
fn live(program: &sys::LaidOut<'_>, inside: [i32; 3], zygote: Option<(i32, Nursery<'_>)>) -> i32 {
    let payload = match sys::clone(0) {
        Ok(Side::Parent { child }) => child,
        Ok(Side::Child) => {
            sys::default_signals();
            sys::new_session();
            for (fd, target) in inside.into_iter().zip(0..) {
                sys::rename(fd, target);
            }
            if let Some((control, _)) = zygote {
                sys::rename(control, flakefarm_nest::ZYGOTE_CONTROL_FD);
            }
            let code = program.execute();
            let name = program.name();
            let why = io::Error::from_raw_os_error(code).to_string();
            sys::complain(&[b"flakefarm: cannot run `", name, b"`: ", why.as_bytes(), b"\n"]);
            sys::exit_now(127)
        }
        Err(_) => return 126,
    };
    // Or the program could look into this process, which has its user.
    if sys::prctl(libc::PR_SET_DUMPABLE, 0).is_err() {
        return 126;
    }
    if let Some((_, nursery)) = zygote {
        return sys::only(nursery.asked).map_or(126, |asked| nursery.tend(&asked.into(), payload));
    }
    sys::close_from(0);
    loop {
        match sys::wait(-1) {
            Some(waited) if waited.process == payload => return waited.exit_code,
            Some(_) => {}
            None => return 126,
        }
    }
}

fn failed(doing: &str, error: &io::Error) -> NotRun {
    NotRun::Failed(failed_text(doing, error))
}

fn failed_text(doing: &str, error: &io::Error) -> String {
    format!("failed to {doing}: {error}")
}
