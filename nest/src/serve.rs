//! Serving: one attempt after the other, from its start to the end of its last process. What it
//! writes is passed on as it comes; nothing is kept of one attempt for the next but the zygotes.

use crate::attempt::{End, NestSettings, NotRun};
use crate::cell::Kind;
use crate::init::Init;
use crate::leaving::LastLeaving;
use crate::memory::{self, Keeper};
use crate::program;
use crate::sys::{self, Interest};
use crate::wire::{Heard, Wire};
use crate::zygote::{Forked, Zygotes};
use flakefarm_nest::{Attempt, Ended, SetUp, Tell};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// As much as a pipe holds.
const PIECE: usize = 64 << 10;
/// What an attempt writes is passed on together with what it writes within this time, or up to its end:
/// telling the owner wakes several processes on the way.
const GATHER: Duration = Duration::from_millis(10);

/// Serves until the owner goes. Returns the exit code of the process.
pub(crate) fn serve(wire: Wire, set_up: &SetUp, tree: &'static str, keeper: Option<Keeper>) -> i32 {
    let capabilities = sys::capabilities();
    let settings = NestSettings { tree, shared_network: set_up.shared_network, keeper, capabilities };
    let mut server = Server {
        wire,
        settings,
        zygotes: Zygotes::default(),
        ahead: None,
        leaving: LastLeaving::default(),
        piece: vec![0; PIECE],
    };
    server.wire.put(&Tell::Ready);
    loop {
        // What is put here is told when the next attempt has begun, if that is known already.
        let tell = match server.next() {
            Ok(Some(next)) => match server.run(next) {
                Ok(ended) => Tell::Ended(ended),
                Err(NotRun::Failed(why)) => Tell::Failed(why),
                Err(NotRun::NotForked(why)) => Tell::NotForked(why),
                Err(NotRun::Abandoned) => return 0,
            },
            Ok(None) => return 0,
            Err(error) => Tell::Failed(error.to_string()),
        };
        server.wire.put(&tell);
    }
}

/// What serves: the wire, the settings, and what is kept between attempts.
struct Server {
    wire: Wire,
    settings: NestSettings,
    zygotes: Zygotes,
    /// The attempt that was announced, with what is there of it.
    ahead: Option<Next>,
    leaving: LastLeaving,
    piece: Vec<u8>,
}

/// An attempt that has not begun.
struct Next {
    attempt: Box<Attempt>,
    input: Vec<u8>,
    /// If it was made while another attempt ran.
    slot: Option<AttemptSlot>,
}

/// An attempt that was forked or waits for the word, and the nest's ends of its streams.
struct AttemptSlot {
    life: Life,
    pipes: Pipes,
}

/// An attempt, by how it is told to begin and how its end is heard of.
enum Life {
    Own(Init),
    Forked(Forked),
}

impl Server {
    fn next(&mut self) -> io::Result<Option<Next>> {
        let ahead = self.ahead.take();
        if ahead.is_some() {
            return Ok(ahead);
        }
        let asked = self.wire.next_attempt()?;
        Ok(asked.map(|(attempt, input)| Next { attempt, input, slot: None }))
    }

    fn run(&mut self, next: Next) -> Result<Ended, NotRun> {
        let Next { attempt, input, slot } = next;
        self.wire.begin();
        let ended_before = self.settings.keeper.as_ref().map_or(0, Keeper::ended_so_far);
        let AttemptSlot { life, pipes } = match slot {
            Some(slot) => slot,
            None => self.make_slot(&attempt, &input)?,
        };
        match &life {
            Life::Own(init) => init.go(),
            Life::Forked(_) => self.wire.put(&Tell::Forked),
        }
        let watched = match &self.settings.keeper {
            Some(Keeper::Nest) => Some(attempt.memory_bytes),
            Some(Keeper::Kernel(_)) | None => None,
        };
        let overrun = self.attend(&life, pipes, &input, watched)?;
        let End { exit_code, cpu_us } = match life {
            Life::Own(init) => init.ended(&mut self.leaving)?,
            Life::Forked(forked) => self.zygotes.ended(forked)?,
        };
        let ended_since = self.settings.keeper.as_ref().map_or(0, Keeper::ended_so_far) > ended_before;
        Ok(Ended { exit_code, out_of_memory: overrun || ended_since, cpu_us })
    }

    /// Passes on what the attempt writes until all of it has ended. Says whether its memory overran.
    fn attend(
        &mut self,
        life: &Life,
        mut pipes: Pipes,
        input: &[u8],
        watched: Option<u64>,
    ) -> Result<bool, NotRun> {
        let mut overrun = false;
        let mut over = false;
        let mut looks_at = Instant::now() + GATHER;
        self.flush()?;
        // Not before: who makes the cell would run first, and the attempt wait for the rest of its request.
        if let Life::Forked(forked) = life {
            self.zygotes.make_ahead(forked);
        }
        self.make_ahead();
        while !over || pipes.out.is_some() || pipes.err.is_some() {
            let gathers =
                if over { Duration::ZERO } else { looks_at.saturating_duration_since(Instant::now()) };
            let looks = gathers.is_zero();
            if looks && !over {
                self.flush()?;
            }
            let end = match life {
                Life::Own(init) => init.control(),
                Life::Forked(forked) => self.zygotes.control(forked),
            };
            let patience =
                [(!looks).then_some(gathers), watched.map(|_| memory::LOOK)].into_iter().flatten().min();
            let ready = sys::poll(
                [
                    Some((self.wire.asked(), Interest::Readable)),
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
                most = self.pass_on(&mut pipes.out, Tell::Output)?;
            }
            if complained {
                most = most.max(self.pass_on(&mut pipes.err, Tell::Errors)?);
            }
            if (wrote || complained) && !over {
                self.flush()?;
                // Who has filled a pipe waits.
                if most < PIECE {
                    looks_at = Instant::now() + GATHER;
                }
            }
            if reads {
                pipes.feed(input);
            }
            if ended {
                over = true;
                pipes.to_stdin = None;
                if let Life::Forked(forked) = life {
                    forked.empty_cell();
                }
            }
            if asked {
                match self.wire.hear()? {
                    Heard::Nothing => {}
                    Heard::Next => self.make_ahead(),
                    Heard::Kill => self.kill(life),
                    Heard::Gone => return Err(NotRun::Abandoned),
                }
            }
            if let (Some(limit), Life::Own(init), false) = (watched, life, over) {
                overrun |= memory::enforce(init.process(), limit);
            }
        }
        Ok(overrun)
    }

    fn flush(&mut self) -> Result<(), NotRun> {
        self.wire.flush().map_err(|_| NotRun::Abandoned)
    }

    /// Has the attempt that was announced wait for its turn while another runs. Of one that is forked, the
    /// cell waits already. What cannot be had while the other runs is tried again when it has ended.
    fn make_ahead(&mut self) {
        let Some((attempt, input)) = self.wire.take_announced() else { return };
        let slot = if attempt.fork.is_none() { self.make_slot(&attempt, &input).ok() } else { None };
        self.ahead = Some(Next { attempt, input, slot });
    }

    fn make_slot(&mut self, attempt: &Attempt, input: &[u8]) -> Result<AttemptSlot, NotRun> {
        let (mut pipes, streams) = Pipes::new()?;
        pipes.feed(input);
        let streams = streams.each_ref().map(AsFd::as_fd);
        let life = match &attempt.fork {
            None => {
                let program = program::program(&attempt.argv, &program::variables(attempt, None))?;
                Life::Own(Init::of_attempt(&self.settings.cell(Kind::Fresh, attempt), &program, streams)?)
            }
            Some(fork) => Life::Forked(self.zygotes.fork(
                &mut self.wire,
                &self.settings,
                attempt,
                fork,
                input,
                streams,
            )?),
        };
        Ok(AttemptSlot { life, pipes })
    }

    fn kill(&mut self, life: &Life) {
        match life {
            Life::Own(init) => init.kill(),
            Life::Forked(forked) => self.zygotes.kill(forked),
        }
    }

    /// Returns how much there was.
    fn pass_on(&mut self, pipe: &mut Option<PipeReader>, tell: fn(Vec<u8>) -> Tell) -> Result<usize, NotRun> {
        let Some(reader) = pipe else { return Ok(0) };
        let length = reader.read(&mut self.piece)?;
        if length == 0 {
            *pipe = None;
        } else {
            self.wire.put(&tell(self.piece[..length].to_vec()));
        }
        Ok(length)
    }
}

/// The nest's ends of the three streams of a program.
struct Pipes {
    to_stdin: Option<PipeWriter>,
    /// Of the input.
    written: usize,
    out: Option<PipeReader>,
    err: Option<PipeReader>,
}

impl Pipes {
    /// And the program's ends.
    fn new() -> io::Result<(Self, [OwnedFd; 3])> {
        let (stdin, to_stdin) = io::pipe()?;
        let (out, stdout) = io::pipe()?;
        let (err, stderr) = io::pipe()?;
        sys::set_nonblocking(to_stdin.as_fd())?;
        let pipes = Self { to_stdin: Some(to_stdin), written: 0, out: Some(out), err: Some(err) };
        Ok((pipes, [stdin.into(), stdout.into(), stderr.into()]))
    }

    /// A program that does not read its input is no error.
    fn feed(&mut self, input: &[u8]) {
        let Some(pipe) = &mut self.to_stdin else { return };
        match pipe.write(&input[self.written..]) {
            Ok(length) if length > 0 => self.written += length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.to_stdin = None,
        }
        if self.written == input.len() {
            self.to_stdin = None;
        }
    }
}
