//! Looks at a database without changing it: opening one brings its schema up to date, which is nothing for
//! somebody who only asks what is wrong.

use super::{Db, DbError, migrations, postgres, sqlite};
use flakefarm_shared::UnixMicros;
use std::path::Path;

/// What is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// The newest step of the schema that was taken; none if there is no schema of ours.
    pub schema: Option<i64>,
    /// The newest step that this program knows.
    pub known: i64,
    /// What kind of database it is, and its version.
    pub server: String,
    /// Its clock, if it has one of its own.
    pub clock: Option<UnixMicros>,
    /// What this user may not do and would have to.
    pub lacks: Vec<String>,
}

impl Db {
    /// Looks at the database at `url`. Nothing is made, nothing is changed; none if there is no such file.
    pub async fn inspect(url: &str) -> Result<Option<Inspection>, DbError> {
        let (kind, seen) = match url.split_once(':') {
            Some(("sqlite", rest)) => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if !Path::new(path).exists() {
                    return Ok(None);
                }
                ("SQLite", sqlite::inspect(path).await?)
            }
            Some(("postgres" | "postgresql", _)) => ("PostgreSQL", postgres::inspect(url).await?),
            // It says what is wrong with the address.
            _ => return Db::open(url).await.map(|_| None),
        };
        let (schema, version, clock, may_make_tables) = seen;
        let lacks = if may_make_tables { Vec::new() } else { vec!["CREATE on the schema".to_owned()] };
        let server = format!("{kind} {version}");
        Ok(Some(Inspection { schema, known: migrations::newest(), server, clock, lacks }))
    }
}
