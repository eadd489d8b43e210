//! Why a revision could not be fetched, and what to do about it.

use super::remote::RemoteError;
use crate::snapshot::SnapshotError;
use std::time::Duration;

/// Why a revision could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// What was named is no remote that is asked.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// git cannot be started here.
    #[error("git cannot be run where the coordinator runs")]
    NoGit(#[source] std::io::Error),
    /// It does not answer, or not as a repository does.
    #[error("{url} cannot be reached: {why}")]
    Unreachable {
        /// The remote.
        url: String,
        /// git's last words.
        why: String,
    },
    /// It is not the machine that the credentials know, or not one they know.
    #[error("whether {url} is who it says cannot be told: {why}")]
    UnknownHost {
        /// The remote.
        url: String,
        /// The last words of ssh.
        why: String,
    },
    /// It wants to know who asks, or will not have it.
    #[error("{url} refuses who asks: {why}")]
    Refused {
        /// The remote.
        url: String,
        /// git's last words.
        why: String,
        /// Whether it was told who asks.
        named: bool,
    },
    /// What is to open it is of another kind than it asks for.
    #[error("{url} is opened by {wants}, and the credentials are {are}")]
    OtherKind {
        /// The remote.
        url: String,
        /// What it asks for.
        wants: &'static str,
        /// What there is.
        are: &'static str,
    },
    /// There is none at this address, or none that is shown to who asks.
    #[error("{url} has no repository for who asks: {why}")]
    NoRepository {
        /// The remote.
        url: String,
        /// git's last words.
        why: String,
    },
    /// It has no such branch, tag or commit.
    #[error("{url} has no branch, tag or commit `{revision}`")]
    Unknown {
        /// The remote.
        url: String,
        /// What was asked for.
        revision: String,
    },
    /// It takes more than it may.
    #[error("{url} is larger than {} at `{revision}`: {} had come when it was left", size(*limit_bytes), size(*fetched_bytes))]
    TooLarge {
        /// The remote.
        url: String,
        /// What was asked for.
        revision: String,
        /// The limit.
        limit_bytes: u64,
        /// What had come.
        fetched_bytes: u64,
    },
    /// The disk would be full.
    #[error("{url} was left: only {} are free where the coordinator keeps temporary files", size(*free_bytes))]
    NoRoom {
        /// The remote.
        url: String,
        /// What is left of the disk.
        free_bytes: u64,
    },
    /// It takes longer than it may.
    #[error("{url} took longer than {} s and was left", limit.as_secs())]
    TooSlow {
        /// The remote.
        url: String,
        /// The limit.
        limit: Duration,
    },
    /// The revision has no such directory.
    #[error("{url} has no directory `{directory}` at {commit}")]
    NoDirectory {
        /// The remote.
        url: String,
        /// Where the project should lie.
        directory: String,
        /// The commit.
        commit: String,
    },
    /// What was fetched is no tree that can be written.
    #[error("what {url} has at {commit} cannot be written: {why}")]
    Damaged {
        /// The remote.
        url: String,
        /// The commit.
        commit: String,
        /// git's last words.
        why: String,
    },
    /// Its files could not be packed.
    #[error("failed to pack {commit}")]
    Pack {
        /// The commit.
        commit: String,
        /// Why.
        #[source]
        source: SnapshotError,
    },
    /// A temporary directory could not be made, or written to.
    #[error("failed to write a temporary directory")]
    Scratch(#[source] std::io::Error),
    /// Nobody wants it any more.
    #[error("fetching was stopped")]
    Stopped,
}

impl FetchError {
    /// Whether it may go well by itself, a while later.
    pub fn may_pass(&self) -> bool {
        match self {
            FetchError::Unreachable { .. }
            | FetchError::TooSlow { .. }
            | FetchError::NoRoom { .. }
            | FetchError::Scratch(_)
            | FetchError::Stopped => true,
            FetchError::Remote(_)
            | FetchError::NoGit(_)
            | FetchError::UnknownHost { .. }
            | FetchError::Refused { .. }
            | FetchError::OtherKind { .. }
            | FetchError::NoRepository { .. }
            | FetchError::Unknown { .. }
            | FetchError::TooLarge { .. }
            | FetchError::NoDirectory { .. }
            | FetchError::Damaged { .. }
            | FetchError::Pack { .. } => false,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            FetchError::Remote(error) => error.hint(),
            FetchError::NoGit(_) => "install git beside the coordinator",
            FetchError::Unreachable { why, .. } if why.contains("certificate") => {
                "GIT_SSL_CAINFO in the coordinator's environment names a file of authorities that it is to trust"
            }
            FetchError::Unreachable { .. } => "is the address right, and reached from the coordinator?",
            FetchError::UnknownHost { .. } => {
                "`ssh-keyscan HOST` says which key it has: compare it with what its people publish, put that line \
                 below the private key in the file, and add the schedule again with --git-credentials FILE"
            }
            FetchError::Refused { named: false, .. } => {
                "name a file with what opens it: --git-credentials FILE"
            }
            FetchError::Refused { named: true, .. } => {
                "is it still valid, and may it read this repository? Add the schedule again with \
                 --git-credentials FILE to replace it"
            }
            FetchError::OtherKind { .. } => {
                "https:// takes a token or user:password, ssh:// a private key and lines of known_hosts"
            }
            FetchError::NoRepository { .. } => {
                "is the path right? Many servers say so of a repository that who asks may not read: \
                 --git-credentials FILE"
            }
            FetchError::Unknown { .. } => {
                "`git ls-remote URL` lists branches and tags; a commit is named by all its digits, and many \
                 servers give only those that a branch or tag names"
            }
            FetchError::TooLarge { .. } => {
                "only the one revision is fetched, without history: what is large are its own files; the \
                 coordinator's --fetch-size is what it may take"
            }
            FetchError::TooSlow { .. } => "the coordinator's --fetch-time is what it may take",
            FetchError::NoDirectory { .. } => "--git-directory is below the repository's top",
            FetchError::Damaged { .. } => "does `git clone` of it work?",
            FetchError::Pack { source, .. } => source.hint().unwrap_or("the coordinator's log says more"),
            FetchError::NoRoom { .. } => {
                "make room there, or name another place (TMPDIR); --fetch-size bounds what one fetch takes"
            }
            FetchError::Scratch(_) => "is there room where the coordinator keeps temporary files (TMPDIR)?",
            FetchError::Stopped => "try again",
        }
    }
}

/// In MiB, or in KiB if that says more.
fn size(bytes: u64) -> String {
    if bytes < 10 << 20 { format!("{} KiB", bytes >> 10) } else { format!("{} MiB", bytes >> 20) }
}
