//! What a setting is called in each layer, and what it may hold.

use super::kind::Kind;

/// One setting: what it is called in each layer, and what it may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Its key in files, with its section: `limits.memory`.
    pub key: &'static str,
    /// What it may hold.
    pub kind: Kind,
    pub(super) default: Option<&'static str>,
    pub(super) variable: Option<&'static str>,
    pub(super) in_file: bool,
    pub(super) secret: bool,
}

impl Setting {
    /// A setting without a default that only a file can set.
    pub const fn new(key: &'static str, kind: Kind) -> Self {
        Self { key, kind, default: None, variable: None, in_file: true, secret: false }
    }

    /// With a default, as one would write it.
    pub const fn default(mut self, text: &'static str) -> Self {
        self.default = Some(text);
        self
    }

    /// Also from this environment variable.
    pub const fn variable(mut self, name: &'static str) -> Self {
        self.variable = Some(name);
        self
    }

    /// Not from a file.
    pub const fn not_in_file(mut self) -> Self {
        self.in_file = false;
        self
    }

    /// Never shown; also from a file that holds it and nothing else: the environment variable with
    /// `_FILE` added, or the key with `_file` added, names that file.
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The environment variable it comes from.
    pub const fn of_variable(&self) -> Option<&'static str> {
        self.variable
    }

    /// Whether a file may set it.
    pub const fn is_in_file(&self) -> bool {
        self.in_file
    }

    pub(super) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }

    pub(super) fn name(&self) -> &'static str {
        self.key.split_once('.').map_or(self.key, |(_, name)| name)
    }
}
