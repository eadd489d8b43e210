//! Why something could not be measured.

/// What failed on what, its last lines, and what to type.
#[derive(Debug)]
pub struct Unmeasured {
    /// Whether the command or its options make no sense; else a machine or a server failed.
    pub usage: bool,
    /// What failed.
    pub message: String,
    /// The last lines of what failed.
    pub log: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Unmeasured {
    fn new(usage: bool, message: impl Into<String>) -> Self {
        Self { usage, message: message.into(), log: String::new(), hint: None }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(true, message)
    }

    pub(crate) fn farm(message: impl Into<String>) -> Self {
        Self::new(false, message)
    }

    pub(crate) fn of(error: &dyn std::error::Error) -> Self {
        Self::farm(flakefarm_shared::chain(error))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn log(mut self, log: impl Into<String>) -> Self {
        self.log = log.into();
        self
    }
}

impl<E: std::error::Error> From<E> for Unmeasured {
    fn from(error: E) -> Self {
        Self::of(&error)
    }
}
