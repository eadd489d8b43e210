//! A remote as it is asked, and what its answers mean.

use super::FetchLimits;
use super::credentials::Credentials;
use super::error::FetchError;
use super::git::Stopped;
use super::remote::Remote;
use super::words::Meaning;

/// A remote that is asked, and as whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) remote: &'a Remote,
    limits: FetchLimits,
    named: bool,
}

impl<'a> Asked<'a> {
    /// Unless what is to open it is of another kind than its protocol takes.
    pub(super) fn of(
        remote: &'a Remote,
        credentials: Option<&Credentials>,
        limits: FetchLimits,
    ) -> Result<Self, FetchError> {
        let (key, password) = ("a private key of ssh", "a token or a password");
        let other = |wants, are| FetchError::OtherKind { url: remote.url.clone(), wants, are };
        match (remote.protocol().as_str(), credentials) {
            ("ssh", Some(Credentials::Password { .. })) => Err(other(key, password)),
            ("http" | "https", Some(Credentials::Key { .. })) => Err(other(password, key)),
            ("git", Some(Credentials::Key { .. })) => Err(other("nothing", key)),
            ("git", Some(Credentials::Password { .. })) => Err(other("nothing", password)),
            _ => Ok(Self { remote, limits, named: credentials.is_some() }),
        }
    }

    /// Why git ended that talks to the remote.
    pub(super) fn of_remote(&self, stopped: Stopped) -> FetchError {
        let why = match stopped {
            Stopped::Failed(why) => why,
            other => return self.own(other),
        };
        let url = self.remote.url.clone();
        match Meaning::of(&why) {
            Meaning::UnknownHost => FetchError::UnknownHost { url, why },
            Meaning::Refused => FetchError::Refused { url, why, named: self.named },
            Meaning::UnknownRevision => FetchError::Unknown { url, revision: self.remote.revision.clone() },
            Meaning::NoRepository => FetchError::NoRepository { url, why },
            Meaning::Other => FetchError::Unreachable { url, why },
        }
    }

    /// Why git ended for reasons of this side.
    pub(super) fn own(&self, stopped: Stopped) -> FetchError {
        let url = self.remote.url.clone();
        match stopped {
            Stopped::Failed(why) => FetchError::Unreachable { url, why },
            Stopped::TooLarge(fetched_bytes) => FetchError::TooLarge {
                url,
                revision: self.remote.revision.clone(),
                limit_bytes: self.limits.bytes,
                fetched_bytes,
            },
            Stopped::NoRoom(free_bytes) => FetchError::NoRoom { url, free_bytes },
            Stopped::TooSlow => FetchError::TooSlow { url, limit: self.limits.time },
            Stopped::Start(source) => FetchError::NoGit(source),
            Stopped::Wanted => FetchError::Stopped,
        }
    }
}
