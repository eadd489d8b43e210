//! Who calls: a token's scopes and projects.

use super::refused::Refused;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use std::collections::BTreeSet;

/// What a token lets its bearer do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read sweeps, reports, events, workers.
    Read,
    /// Upload snapshots, submit and cancel sweeps.
    Submit,
    /// Send results of other runs.
    Ingest,
    /// Change what is in quarantine.
    Quarantine,
    /// Requeue and discard dead jobs.
    Admin,
    /// Work for the farm.
    Worker,
}

impl Scope {
    /// All, in the order help texts list them.
    pub const ALL: [Scope; 6] =
        [Scope::Read, Scope::Submit, Scope::Ingest, Scope::Quarantine, Scope::Admin, Scope::Worker];

    /// The stable word in tokens, the database and the document.
    pub fn word(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Submit => "submit",
            Scope::Ingest => "ingest",
            Scope::Quarantine => "quarantine",
            Scope::Admin => "admin",
            Scope::Worker => "worker",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Scope::ALL.into_iter().find(|scope| scope.word() == text);
        known.ok_or_else(|| {
            let words: Vec<_> = Scope::ALL.into_iter().map(Scope::word).collect();
            format!("`{text}` is no scope: {}", words.join(", "))
        })
    }
}

/// Whose sweeps, blobs, history and events a caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Projects {
    /// Everybody's.
    All,
    /// Those of these projects.
    Only(BTreeSet<String>),
}

impl Projects {
    /// Whether a project is among them.
    pub fn include(&self, project: &str) -> bool {
        match self {
            Projects::All => true,
            Projects::Only(names) => names.contains(project),
        }
    }

    /// Their names; none if they are all there are.
    pub fn names(&self) -> Option<Vec<String>> {
        match self {
            Projects::All => None,
            Projects::Only(names) => Some(names.iter().cloned().collect()),
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's id.
    pub token: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// With which projects.
    pub projects: Projects,
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refused> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Refused::new(StatusCode::UNAUTHORIZED, "a token is needed"))
    }
}
