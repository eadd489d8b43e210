//! Leases: which of several coordinators runs a loop. Judged by the database's clock, so that the
//! coordinators' own clocks need not agree.

use super::{Db, DbError, change, postgres};
use std::time::Duration;

impl Db {
    /// Takes or renews the lease `name` for `holder`, until `lasting` from now. False if another holds it.
    pub async fn take_lease(&self, name: &str, holder: &str, lasting: Duration) -> Result<bool, DbError> {
        let lasting = i64::try_from(lasting.as_micros()).unwrap_or(i64::MAX / 2);
        let taken = match self {
            Db::Sqlite(store) => sqlx::query(
                "INSERT INTO leases (name, holder, expires_at)
                 VALUES ($1, $2, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $3)
                 ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
                 WHERE leases.holder = excluded.holder
                    OR leases.expires_at <= CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
            )
            .bind(name)
            .bind(holder)
            .bind(lasting)
            .execute(&store.writer)
            .await
            .map(|done| done.rows_affected()),
            Db::Postgres(store) => postgres::in_time(
                sqlx::query(
                    "INSERT INTO leases (name, holder, expires_at)
                     VALUES ($1, $2, (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint + $3)
                     ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
                     WHERE leases.holder = excluded.holder
                        OR leases.expires_at <= (EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint",
                )
                .bind(name)
                .bind(holder)
                .bind(lasting)
                .execute(&store.pool),
            )
            .await
            .map(|done| done.rows_affected()),
        };
        Ok(taken.map_err(|source| DbError::from_driver("take a lease", source))? > 0)
    }

    /// Gives a lease up, so that another may take it at once. One that `holder` does not hold stays.
    pub async fn release_lease(&self, name: &str, holder: &str) -> Result<(), DbError> {
        let query = "DELETE FROM leases WHERE name = $1 AND holder = $2";
        change!(self, "give up a lease", sqlx::query(query).bind(name).bind(holder))?;
        Ok(())
    }
}
