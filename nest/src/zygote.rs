//! Zygotes: prepared interpreters, one for each hash seed, that fork attempts. Each lives in a cell of
//! its own, keeps what importing and collecting has left there, and forks into fresh cells when asked.
//! A zygote runs the project's code, so it is believed in nothing but its own attempts.

use crate::attempt::{End, NestSettings, NotRun};
use crate::cell::{self, Kind};
use crate::leaving::LastLeaving;
use crate::nursery::{COMPLAINT, Cell, Cells, Nursery, start_zygote};
use crate::program::{self, HASH_SEED};
use crate::sys::{self, Interest, Prepared};
use crate::wire::{Heard, Wire};
use flakefarm_nest::{Attempt, Birth, Fork};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Has the zygote see whether it can fork into a cell.
const TRY: u8 = b'T';
/// Has it fork an attempt.
const FORK: u8 = b'F';
/// Has it fork one that is asked for the same as the one before: it reads no more than the first line.
const FORK_AGAIN: u8 = b'A';
/// Attempts that a zygote forks one after the other.
const IN_TURN: usize = 10;
/// Processes of a zygote itself, beside those of the attempt that it forks.
const OWN_PROCESSES: u32 = 16;

/// The zygotes of one nest, by hash seed.
#[derive(Debug, Default)]
pub(crate) struct Zygotes {
    all: Vec<Option<Zygote>>,
    /// Attempts so far.
    forked: usize,
}

#[derive(Debug)]
struct Zygote {
    first: i32,
    control: UnixStream,
    cells: Cells,
    /// What the last attempt was asked for.
    asked_for: Option<Vec<u8>>,
    /// The next attempt's, if it was used for a trial.
    tried: Option<Cell>,
    /// The last attempt's cell.
    leaving: LastLeaving,
    /// What it has said, not yet a whole line.
    said: Vec<u8>,
    killed: bool,
}

/// An attempt that a zygote has forked.
#[derive(Debug)]
pub(crate) struct Forked {
    turn: usize,
    cell: Cell,
}

impl Forked {
    /// Ends whatever it has left behind.
    pub(crate) fn empty_cell(&self) {
        self.cell.empty();
    }
}

impl Zygotes {
    /// Forks an attempt from the zygote whose turn it is.
    pub(crate) fn fork(
        &mut self,
        wire: &mut Wire,
        settings: &NestSettings,
        attempt: &Attempt,
        fork: &Fork,
        input: &[u8],
        streams: [BorrowedFd<'_>; 3],
    ) -> Result<Forked, NotRun> {
        if fork.hash_seeds.is_empty() {
            return Err(NotRun::Failed("no hash seed for an interpreter".to_owned()));
        }
        self.all.resize_with(fork.hash_seeds.len(), || None);
        let turn = turn_of(self.forked, self.all.len());
        self.forked += 1;
        if self.all[turn].is_none() {
            self.all[turn] = Some(prepare(wire, settings, attempt, fork, fork.hash_seeds[turn])?);
        }
        let zygote = self.all[turn].as_mut().expect("it was just put there");
        Ok(Forked { turn, cell: zygote.fork(input, streams)? })
    }

    /// Has the cell of the zygote's next attempt made, while this one runs.
    pub(crate) fn make_ahead(&mut self, forked: &Forked) {
        let zygote = self.all[forked.turn].as_mut().expect("it runs an attempt");
        // If nobody makes cells any more, that is seen when one is taken.
        let _ = zygote.cells.ask();
    }

    /// Readable when the attempt has ended.
    pub(crate) fn control(&self, forked: &Forked) -> BorrowedFd<'_> {
        self.all[forked.turn].as_ref().expect("it runs an attempt").control.as_fd()
    }

    /// Ends the attempt and its zygote with it.
    pub(crate) fn kill(&mut self, forked: &Forked) {
        if let Some(zygote) = &mut self.all[forked.turn] {
            zygote.killed = true;
            sys::kill(zygote.first);
        }
    }

    /// How the attempt ended, once all of its cell has.
    pub(crate) fn ended(&mut self, forked: Forked) -> Result<End, NotRun> {
        let zygote = self.all[forked.turn].as_mut().expect("it runs an attempt");
        let (leaving, left) = forked.cell.emptied();
        zygote.leaving.replace(leaving, left)?;
        let said = zygote.line()?;
        if let Some(said) = &said {
            if let Some(why) = said.strip_prefix("failed ") {
                return Err(NotRun::Failed(why.to_owned()));
            }
            if let Some(ended) = said.strip_prefix("ended ").and_then(parse_end) {
                return Ok(ended);
            }
        }
        let zygote = self.all[forked.turn].take().expect("it runs an attempt");
        let (was_killed, code) = (zygote.killed, zygote.end());
        // Whoever ended the zygote ended its attempt.
        Ok(End { exit_code: if was_killed { 137 } else { code }, cpu_us: 0 })
    }
}

/// Whose turn the n-th attempt is, from 0. First each has one attempt, so that short jobs meet all of
/// them; then several, because who has just forked finds what it copies in the processor's caches.
fn turn_of(attempt: usize, zygotes: usize) -> usize {
    if attempt < zygotes { attempt } else { attempt / IN_TURN % zygotes }
}

fn parse_end(text: &str) -> Option<End> {
    let (exit_code, cpu_us) = text.split_once(' ')?;
    Some(End { exit_code: exit_code.parse().ok()?, cpu_us: cpu_us.parse().ok()? })
}

impl Zygote {
    fn fork(&mut self, input: &[u8], streams: [BorrowedFd<'_>; 3]) -> Result<Cell, NotRun> {
        let gone = |error| NotRun::NotForked(format!("the prepared interpreter has gone: {error}"));
        let cell = match self.tried.take() {
            Some(cell) => cell,
            None => self.cells.take().map_err(gone)?.map_err(NotRun::Failed)?,
        };
        let fds: Vec<_> = streams.iter().map(AsRawFd::as_raw_fd).chain(cell.namespaces()).collect();
        let asked_for = without_nonce(input);
        let question = question(self.asked_for.as_deref(), asked_for);
        sys::send_descriptors(self.control.as_fd(), question, &fds).map_err(gone)?;
        if question == FORK {
            self.asked_for = Some(asked_for.to_vec());
        }
        Ok(cell)
    }

    /// Whether it can fork into a cell; the inner error is why not.
    fn try_cell(&mut self) -> Result<Result<(), String>, NotRun> {
        self.cells.ask()?;
        let cell = match self.cells.take()? {
            Ok(cell) => cell,
            Err(why) => return Ok(Err(why)),
        };
        let fds: Vec<_> = cell.namespaces().collect();
        sys::send_descriptors(self.control.as_fd(), TRY, &fds)?;
        self.tried = Some(cell);
        Ok(match self.line()? {
            Some(line) if line == "can" => Ok(()),
            Some(line) => Err(line.strip_prefix("refused ").unwrap_or(&line).to_owned()),
            None => Err("the interpreter ended before it could fork".to_owned()),
        })
    }

    /// The next line that it says; `None` if it has gone.
    fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.said.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.said.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            let mut piece = [0; 1024];
            match self.control.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(length) => self.said.extend(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends it and says how it had ended.
    fn end(self) -> i32 {
        sys::kill(self.first);
        sys::wait(self.first).map_or(137, |waited| waited.exit_code)
    }
}

/// What an attempt's standard input asks for: all but its first line, which no two attempts have in common.
fn without_nonce(input: &[u8]) -> &[u8] {
    let end = input.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    &input[end..]
}

fn question(asked_for_before: Option<&[u8]>, asked_for: &[u8]) -> u8 {
    if asked_for_before == Some(asked_for) { FORK_AGAIN } else { FORK }
}

/// Starts an interpreter and waits until it is ready to fork.
fn prepare(
    wire: &mut Wire,
    settings: &NestSettings,
    attempt: &Attempt,
    fork: &Fork,
    hash_seed: u32,
) -> Result<Zygote, NotRun> {
    // It takes its time.
    wire.flush().map_err(|_| NotRun::Abandoned)?;
    let (stdin, mut to_stdin) = io::pipe()?;
    let (from_output, output) = io::pipe()?;
    let (control, theirs) = UnixStream::pair()?;
    let (cells, asked) = UnixStream::pair()?;
    let mut own = settings.cell(Kind::Zygote, attempt);
    own.pids = own.pids.saturating_add(OWN_PROCESSES);
    let program = program::program(&fork.argv, &program::variables(attempt, Some(hash_seed)))?;
    let forked = settings.cell(Kind::Forked, attempt);
    let steps = forked.steps();
    let nursery = Nursery {
        asked: asked.as_raw_fd(),
        flags: forked.flags(),
        steps: &Prepared::new(&steps),
        shared_network: settings.shared_network,
    };
    let streams = [stdin.as_fd(), output.as_fd(), output.as_fd()];
    let first = start_zygote(&own, &program, streams, theirs.as_fd(), &nursery)?;
    drop((stdin, output, theirs, asked));
    let cells = Cells::new(cells);
    let mut zygote = Zygote {
        first,
        control,
        cells,
        asked_for: None,
        tried: None,
        leaving: LastLeaving::default(),
        said: Vec::new(),
        killed: false,
    };
    let ours = !attempt.variables.contains_key(HASH_SEED) && std::env::var_os(HASH_SEED).is_none();
    let birth = Birth {
        setns: libc::SYS_setns,
        put_down: cell::put_down(),
        take_up: cell::take_up(),
        steps: forked.joining(),
        unset: if ours { vec![HASH_SEED.to_owned()] } else { Vec::new() },
    };
    let mut line = serde_json::to_vec(&birth).expect("plain data serialises");
    line.push(b'\n');
    // Small: the pipe takes the one, the socket the other, whether it reads them or not.
    let told = to_stdin.write_all(fork.input.as_bytes()).and_then(|()| zygote.control.write_all(&line));
    drop(to_stdin);
    let heard = match told {
        Ok(()) => listen(wire, &mut zygote, from_output).and_then(|heard| match heard {
            Ok(()) => zygote.try_cell(),
            Err(why) => Ok(Err(why)),
        }),
        Err(error) => Ok(Err(format!("it did not read what it was told: {error}"))),
    };
    match heard {
        Ok(Ok(())) => Ok(zygote),
        Ok(Err(why)) => {
            zygote.end();
            Err(NotRun::NotForked(why))
        }
        Err(not_run) => {
            zygote.end();
            Err(not_run)
        }
    }
}

/// Waits for the word of a new zygote. The inner error is why it will not do.
fn listen(wire: &mut Wire, zygote: &mut Zygote, output: PipeReader) -> Result<Result<(), String>, NotRun> {
    let mut output = Some(output);
    let mut complaint = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let ready = sys::poll(
            [
                Some((wire.asked(), Interest::Readable)),
                Some((zygote.control.as_fd(), Interest::Readable)),
                output.as_ref().map(|pipe| (pipe.as_fd(), Interest::Readable)),
            ],
            None,
        )?;
        let [asked, spoke, wrote] = ready;
        if wrote && let Some(pipe) = &mut output {
            match pipe.read(&mut piece)? {
                0 => output = None,
                length => complaint.extend(&piece[..length]),
            }
            complaint.drain(..complaint.len().saturating_sub(COMPLAINT));
        }
        if asked {
            match wire.hear()? {
                Heard::Nothing | Heard::Next => {}
                Heard::Kill => return Ok(Err("it was ended while it prepared itself".to_owned())),
                Heard::Gone => return Err(NotRun::Abandoned),
            }
        }
        if spoke {
            return Ok(match zygote.line()? {
                Some(line) if line == "ready" => Ok(()),
                Some(line) => Err(line.strip_prefix("refused ").unwrap_or(&line).to_owned()),
                None => {
                    let said = String::from_utf8_lossy(&complaint).trim().to_owned();
                    let last = said.lines().last().unwrap_or("without a word");
                    Err(format!("the interpreter ended while it prepared itself: {last}"))
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_that_differ_in_their_nonce_alone_are_asked_for_again() {
        let of = |input: &'static [u8]| without_nonce(input);
        let first = of(b"0123\n{\"tests\":null}");
        assert_eq!(question(None, first), FORK);
        assert_eq!(question(Some(first), of(b"4567\n{\"tests\":null}")), FORK_AGAIN);
        assert_eq!(question(Some(first), of(b"0123\n{\"tests\":[]}")), FORK);
        assert_eq!(of(b"no line"), b"no line");
    }
}
