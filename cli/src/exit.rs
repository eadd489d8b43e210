//! How a command ends: the documented exit codes, and errors that say what to do about them.

use std::fmt;
use std::process::ExitCode;

/// The exit codes of every command; scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Nothing to complain about.
    Clean = 0,
    /// What `--fail-on` names was found.
    GateFailed = 1,
    /// The command, its options or the configuration make no sense.
    Usage = 2,
    /// `--fail-on inconclusive`, and some test is.
    Inconclusive = 3,
    /// No test ran.
    NothingRan = 4,
    /// Something of ours failed: the container engine, a server, the disk.
    FarmFailed = 70,
    /// Stopped by the user.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// An error for a person: what failed on what, its last lines, and what to type.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) exit: Exit,
    pub(crate) message: String,
    pub(crate) log: String,
    pub(crate) hint: Option<String>,
}

impl Complaint {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), log: String::new(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn farm(message: impl Into<String>) -> Self {
        Self::new(Exit::FarmFailed, message)
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        self
    }

    /// Something that the user has to correct, with all its causes.
    pub(crate) fn wrong(error: &dyn std::error::Error, hint: Option<&str>) -> Self {
        let complaint = Self::usage(flakefarm_shared::chain(error));
        match hint {
            Some(hint) => complaint.hint(hint),
            None => complaint,
        }
    }

    /// What is wrong with a setting.
    pub(crate) fn of_setting(error: &flakefarm_project::settings::SettingError) -> Self {
        Self::wrong(error, error.hint())
    }

    /// An error of ours with all its causes, as a failure of the farm.
    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self::farm(flakefarm_shared::chain(error))
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        for line in self.log.trim_end().lines() {
            write!(f, "\n  | {line}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl<E: std::error::Error> From<E> for Complaint {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}
