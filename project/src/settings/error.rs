//! What can be wrong with settings; each names the place.

use std::path::PathBuf;

/// Settings could not be read. The user can correct all of these.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// A file could not be read.
    #[error("failed to read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{}:{line}: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// What the parser said.
        message: String,
    },
    /// A setting has a value that makes no sense.
    #[error("{place}: `{key}` {message}")]
    Value {
        /// Where it was set: `flakefarm.toml:3`, a variable, or an option.
        place: String,
        /// Which setting, with its section.
        key: String,
        /// What is wrong with its value.
        message: String,
        /// What to write instead.
        hint: String,
    },
}

impl SettingError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            SettingError::Value { hint, .. } => Some(hint),
            SettingError::Read { .. } | SettingError::Syntax { .. } => None,
        }
    }
}
