//! The nest's end of the wire: what its owner asks, in the order in which it is answered, and what it is
//! told.

use flakefarm_nest::{Ask, Attempt, SetUp, Tell};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

/// Both directions. What is asked is read unbuffered, so that polling tells of all of it.
#[derive(Debug)]
pub(crate) struct Wire {
    input: File,
    output: File,
    put: Vec<u8>,
    /// Attempts that were begun.
    begun: u32,
    /// What was asked while an attempt ran.
    announced: Option<Asked>,
    /// Of the attempt that will be asked for next.
    attempts_input: Vec<u8>,
}

/// An attempt and its standard input.
pub(crate) type Asked = (Box<Attempt>, Vec<u8>);

/// What the owner of a running attempt wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing that cannot wait for its end.
    Nothing,
    /// That another follows: see [`Wire::take_announced`].
    Next,
    /// That it ends now.
    Kill,
    /// Nothing any more: the owner has gone.
    Gone,
}

impl Wire {
    pub(crate) fn of_standard_streams() -> io::Result<Self> {
        Ok(Self {
            input: io::stdin().as_fd().try_clone_to_owned()?.into(),
            output: io::stdout().as_fd().try_clone_to_owned()?.into(),
            put: Vec::new(),
            begun: 0,
            announced: None,
            attempts_input: Vec::new(),
        })
    }

    /// What is asked first; `None` if nothing ever is.
    pub(crate) fn set_up(&mut self) -> io::Result<Option<SetUp>> {
        match Ask::read(&mut self.input)? {
            Some(Ask::SetUp(set_up)) => Ok(Some(set_up)),
            Some(Ask::Input(_) | Ask::Start(_) | Ask::Kill(_)) => {
                Err(io::Error::other("it was asked before it was set up"))
            }
            None => Ok(None),
        }
    }

    /// Readable when something is asked.
    pub(crate) fn asked(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// The attempt that follows the one that runs, if it is known.
    pub(crate) fn take_announced(&mut self) -> Option<Asked> {
        self.announced.take()
    }

    /// Waits for the next attempt, and tells what was put before it does; `None` once the owner has gone.
    pub(crate) fn next_attempt(&mut self) -> io::Result<Option<Asked>> {
        loop {
            if let Some(asked) = self.announced.take() {
                return Ok(Some(asked));
            }
            if self.flush().is_err() {
                return Ok(None);
            }
            match Ask::read(&mut self.input)? {
                Some(ask) => self.take_up(ask)?,
                None => return Ok(None),
            }
        }
    }

    /// From now on the attempt that was asked for first of those that have not begun is the running one.
    pub(crate) fn begin(&mut self) {
        self.begun += 1;
    }

    /// What is asked while an attempt runs. Waits for it.
    pub(crate) fn hear(&mut self) -> io::Result<Heard> {
        match Ask::read(&mut self.input)? {
            Some(Ask::Kill(number)) if number == self.begun => Ok(Heard::Kill),
            Some(ask) => {
                let is_next = matches!(ask, Ask::Start(_));
                self.take_up(ask)?;
                Ok(if is_next { Heard::Next } else { Heard::Nothing })
            }
            None => Ok(Heard::Gone),
        }
    }

    fn take_up(&mut self, ask: Ask) -> io::Result<()> {
        match ask {
            Ask::Input(piece) => self.attempts_input.extend(piece),
            Ask::Start(attempt) if self.announced.is_none() => {
                self.announced = Some((attempt, std::mem::take(&mut self.attempts_input)));
            }
            // It crossed the attempt's end on its way.
            Ask::Kill(_) => {}
            Ask::Start(_) => return Err(io::Error::other("it was asked for two attempts ahead")),
            Ask::SetUp(_) => return Err(io::Error::other("it is set up already")),
        }
        Ok(())
    }

    /// Has it told together with what follows.
    pub(crate) fn put(&mut self, tell: &Tell) {
        self.put.extend(tell.to_frame());
    }

    /// Tells what was put, if anything was.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        if !self.put.is_empty() {
            self.output.write_all(&self.put)?;
            self.put.clear();
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self, tell: &Tell) -> io::Result<()> {
        self.put(tell);
        self.flush()
    }
}
