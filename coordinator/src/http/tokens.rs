//! Tokens: `ff_<kind>_<id>_<secret>`. The secret has 43 random characters (256 bits), so a plain
//! SHA-256 of it is stored; it is shown once, when it is issued.

use super::caller::{Caller, Projects, Scope};
use crate::db::{Db, DbError, TokenRow};
use flakefarm_shared::{Digest, UnixMicros, now_micros};
use std::collections::BTreeSet;
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// A token's last use is recorded no more often than this.
const USE_MICROS: i64 = 60_000_000;

/// What most tokens are for: a set of scopes by one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// Read sweeps, reports and workers.
    Read,
    /// That, and upload snapshots, submit and cancel sweeps, send results.
    Submit,
    /// Everything.
    Admin,
}

impl TokenKind {
    /// The word in the token and in the database.
    pub fn word(self) -> &'static str {
        match self {
            TokenKind::Read => "read",
            TokenKind::Submit => "submit",
            TokenKind::Admin => "admin",
        }
    }

    /// What a token of this kind lets its bearer do, unless it names scopes of its own.
    pub fn scopes(self) -> BTreeSet<Scope> {
        match self {
            TokenKind::Read => BTreeSet::from([Scope::Read]),
            TokenKind::Submit => BTreeSet::from([Scope::Read, Scope::Submit, Scope::Ingest]),
            TokenKind::Admin => BTreeSet::from(Scope::ALL),
        }
    }
}

impl std::str::FromStr for TokenKind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "read" => Ok(TokenKind::Read),
            "submit" => Ok(TokenKind::Submit),
            "admin" => Ok(TokenKind::Admin),
            other => Err(format!("`{other}` is no kind of token: read, submit or admin")),
        }
    }
}

/// A token to be issued.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its kind.
    pub kind: TokenKind,
    /// Its own scopes; none: those of its kind.
    pub scopes: Option<BTreeSet<Scope>>,
    /// For which projects.
    pub projects: Projects,
    /// What it is for, for people.
    pub label: String,
    /// When it ends by itself.
    pub expires_at: Option<UnixMicros>,
}

/// Makes a token and records its hash; returns the token, which cannot be shown again.
pub async fn issue_token(db: &Db, token: NewToken) -> Result<String, DbError> {
    let (id, secret) = (random_text(10), random_text(43));
    let words = |scopes: BTreeSet<Scope>| scopes.into_iter().map(|scope| scope.word().to_owned()).collect();
    db.insert_token(&TokenRow {
        id: id.clone(),
        kind: token.kind.word().to_owned(),
        hash: Digest::of(secret.as_bytes()).as_str().to_owned(),
        label: token.label,
        created_at: now_micros(),
        expires_at: token.expires_at,
        revoked_at: None,
        last_used: None,
        scopes: token.scopes.map(words),
        projects: token.projects.names(),
    })
    .await?;
    Ok(format!("ff_{}_{id}_{secret}", token.kind.word()))
}

fn random_text(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

/// Who bears a valid token; `None` if it is unknown, expired or revoked.
pub async fn check_token(db: &Db, token: &str) -> Result<Option<Caller>, DbError> {
    let mut parts = token.splitn(4, '_');
    let (Some("ff"), Some(kind), Some(id), Some(secret)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let Some(row) = db.token(id).await? else { return Ok(None) };
    let now = now_micros();
    let hash = Digest::of(secret.as_bytes());
    let same: bool = hash.as_str().as_bytes().ct_eq(row.hash.as_bytes()).into();
    let alive = row.revoked_at.is_none() && row.expires_at.is_none_or(|at| now < at);
    if !(same && alive && row.kind == kind) {
        return Ok(None);
    }
    if row.last_used.is_none_or(|at| now - at > USE_MICROS) {
        db.touch_token(id, now).await?;
    }
    let scopes = match row.scopes {
        // A word that this program does not know gives no right.
        Some(words) => words.iter().filter_map(|word| word.parse().ok()).collect(),
        None => row.kind.parse::<TokenKind>().map(TokenKind::scopes).unwrap_or_default(),
    };
    let projects = match row.projects {
        Some(names) => Projects::Only(names.into_iter().collect()),
        None => Projects::All,
    };
    Ok(Some(Caller { token: row.id, scopes, projects }))
}
