//! Tokens: `ff_<kind>_<id>_<secret>`. The secret has 32 random bytes, so a plain SHA-256 of it is
//! stored; it is shown once, when it is issued.

use super::Refused;
use crate::db::{Db, DbError, TokenRow};
use crate::engine::Coordinator;
use axum::http::{HeaderMap, Method, StatusCode, header};
use flakefarm_shared::{Digest, UnixMicros, now_micros};
use subtle::ConstantTimeEq;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// What a token lets its bearer do; each kind includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TokenKind {
    /// Read sweeps, reports and workers.
    Read,
    /// Upload snapshots, submit and cancel sweeps.
    Submit,
    /// Requeue and discard dead jobs.
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

/// Makes a token and records its hash; returns the token, which cannot be shown again.
pub async fn issue_token(
    db: &Db,
    kind: TokenKind,
    label: &str,
    expires_at: Option<UnixMicros>,
) -> Result<String, DbError> {
    let (id, secret) = (random_text(10), random_text(43));
    db.insert_token(&TokenRow {
        id: id.clone(),
        kind: kind.word().to_owned(),
        hash: Digest::of(secret.as_bytes()).as_str().to_owned(),
        label: label.to_owned(),
        created_at: now_micros(),
        expires_at,
        revoked_at: None,
        last_used: None,
        scopes: None,
        projects: None,
    })
    .await?;
    Ok(format!("ff_{}_{id}_{secret}", kind.word()))
}

fn random_text(length: usize) -> String {
    (0..length).map(|_| char::from(ALPHABET[rand::random_range(0..ALPHABET.len())])).collect()
}

/// The kind of a valid token; `None` if it is unknown, expired or revoked.
pub async fn check_token(db: &Db, token: &str) -> Result<Option<TokenKind>, DbError> {
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
    if row.last_used.is_none_or(|at| now - at > 60_000_000) {
        db.touch_token(id, now).await?;
    }
    Ok(row.kind.parse().ok())
}

pub(super) async fn authorise(
    coordinator: &Coordinator,
    headers: &HeaderMap,
    method: &Method,
    path: &str,
) -> Result<(), Refused> {
    let hint =
        "issue one with `flakefarm token create` where the coordinator runs, and pass it in FLAKEFARM_TOKEN";
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let Some(token) = token else {
        return Err(Refused::new(StatusCode::UNAUTHORIZED, "a token is needed").hint(hint));
    };
    let needed = if *method == Method::GET {
        TokenKind::Read
    } else if path.starts_with("/v1/dead") {
        TokenKind::Admin
    } else {
        TokenKind::Submit
    };
    match check_token(coordinator.db(), token).await? {
        None => {
            Err(Refused::new(StatusCode::UNAUTHORIZED, "the token is unknown, expired or revoked").hint(hint))
        }
        Some(kind) if kind < needed => Err(Refused::new(
            StatusCode::FORBIDDEN,
            format!("this needs a token of kind {}, not {}", needed.word(), kind.word()),
        )
        .hint(hint)),
        Some(_) => Ok(()),
    }
}
