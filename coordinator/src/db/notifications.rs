//! Channels, what they were told, and the outbox of what is on its way to them. What follows from an event
//! (deliveries, what the channel knows then, that the event was looked at) is one transaction.

use super::raw::{clean, json, subject};
use super::{Db, DbError, change, postgres, read};
use crate::notify::message::Told;
use crate::notify::{Channel, Message};
use flakefarm_shared::UnixMicros;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A recorded channel.
#[derive(Debug, Clone, PartialEq)]
pub struct ChannelRow {
    /// Its id.
    pub id: Uuid,
    /// Its project.
    pub project: String,
    /// It.
    pub channel: Channel,
    /// The last recorded event that was looked at for it.
    pub event: i64,
    /// When its digest comes next.
    pub digest_at: Option<UnixMicros>,
}

#[derive(sqlx::FromRow)]
struct RawChannel {
    id: Uuid,
    project: String,
    body: String,
    event: i64,
    digest_at: Option<i64>,
}

impl RawChannel {
    /// One that a newer program wrote is passed over.
    fn known(self) -> Option<ChannelRow> {
        let channel = serde_json::from_str(&self.body).ok()?;
        let Self { id, project, event, digest_at, .. } = self;
        Some(ChannelRow { id, project, channel, event, digest_at })
    }
}

/// A message on its way, delivered or dead.
#[derive(Debug, Clone, PartialEq)]
pub struct DeliveryRow {
    /// Its id, the same at every try.
    pub id: Uuid,
    /// Its channel.
    pub channel: Uuid,
    /// The message.
    pub message: Message,
    /// When it came up.
    pub created_at: UnixMicros,
    /// Tries so far.
    pub tries: u32,
    /// When it is tried next; none if it is delivered or dead.
    pub next_at: Option<UnixMicros>,
    /// When it was delivered.
    pub delivered_at: Option<UnixMicros>,
    /// When it was given up.
    pub died_at: Option<UnixMicros>,
    /// Why the last try was in vain.
    pub last_error: Option<String>,
}

#[derive(sqlx::FromRow)]
struct RawDelivery {
    id: Uuid,
    channel: Uuid,
    body: String,
    created_at: i64,
    tries: i64,
    next_at: Option<i64>,
    delivered_at: Option<i64>,
    died_at: Option<i64>,
    last_error: Option<String>,
}

impl RawDelivery {
    fn known(self) -> Option<DeliveryRow> {
        let message = serde_json::from_str(&self.body).ok()?;
        let Self { id, channel, created_at, next_at, delivered_at, died_at, last_error, .. } = self;
        let tries = u32::try_from(self.tries).unwrap_or(u32::MAX);
        Some(DeliveryRow {
            id,
            channel,
            message,
            created_at,
            tries,
            next_at,
            delivered_at,
            died_at,
            last_error,
        })
    }
}

/// What follows from an event for a channel.
#[derive(Debug, Clone, Default)]
pub struct Followed {
    /// What is to be told, and when it may be.
    pub messages: Vec<(Message, UnixMicros)>,
    /// What the channel knows then, of tests for which that changed.
    pub told: BTreeMap<String, Told>,
    /// The event; none if it was none.
    pub event: Option<i64>,
    /// When the digest comes next, if that changed.
    pub digest_at: Option<Option<UnixMicros>>,
}

macro_rules! follow {
    ($transaction:expr, $channel:expr, $followed:expr, $now:expr) => {{
        for (message, at) in &$followed.messages {
            // Derived, so that telling twice makes one delivery.
            let id = Uuid::new_v5(&$channel, message.key.as_bytes());
            sqlx::query(
                "INSERT INTO deliveries (id, channel, cause, body, created_at, next_at)
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING",
            )
            .bind(id)
            .bind($channel)
            .bind(clean(&message.cause))
            .bind(json(message))
            .bind($now)
            .bind(*at)
            .execute(&mut *$transaction)
            .await?;
        }
        for (test, told) in &$followed.told {
            sqlx::query(
                "INSERT INTO told (channel, subject, test, body) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (channel, subject) DO UPDATE SET body = excluded.body",
            )
            .bind($channel)
            .bind(subject("", test))
            .bind(clean(test))
            .bind(json(told))
            .execute(&mut *$transaction)
            .await?;
        }
        if let Some(event) = $followed.event {
            sqlx::query("UPDATE channels SET event = $2 WHERE id = $1 AND event < $2")
                .bind($channel)
                .bind(event)
                .execute(&mut *$transaction)
                .await?;
        }
        if let Some(digest_at) = $followed.digest_at {
            sqlx::query("UPDATE channels SET digest_at = $2 WHERE id = $1")
                .bind($channel)
                .bind(digest_at)
                .execute(&mut *$transaction)
                .await?;
        }
    }};
}

impl Db {
    /// Records a channel; one of the same project and name is replaced and keeps its id, and what it was
    /// told. A new one hears of what happens from now on.
    pub async fn put_channel(
        &self,
        project: &str,
        channel: &Channel,
        digest_at: Option<UnixMicros>,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let latest = self.latest_event().await?;
        let query = "INSERT INTO channels (id, project, name, body, created_at, event, digest_at)
                     VALUES ($1, $2, $3, $4, $5, $6, $7)
                     ON CONFLICT (project, name) DO UPDATE SET body = excluded.body,
                         digest_at = excluded.digest_at";
        change!(
            self,
            "record a channel",
            sqlx::query(query)
                .bind(Uuid::now_v7())
                .bind(clean(project))
                .bind(clean(&channel.name))
                .bind(json(channel))
                .bind(now)
                .bind(latest)
                .bind(digest_at)
        )?;
        Ok(())
    }

    /// Records the secret of a project's hook, or takes the hook away.
    pub async fn set_hook(
        &self,
        project: &str,
        secret: Option<&str>,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        match secret {
            Some(secret) => {
                let query = "INSERT INTO hooks (project, secret, created_at) VALUES ($1, $2, $3)
                             ON CONFLICT (project) DO UPDATE SET secret = excluded.secret";
                change!(
                    self,
                    "record a hook",
                    sqlx::query(query).bind(clean(project)).bind(clean(secret)).bind(now)
                )?;
            }
            None => {
                let query = "DELETE FROM hooks WHERE project = $1";
                change!(self, "take a hook away", sqlx::query(query).bind(clean(project)))?;
            }
        }
        Ok(())
    }

    /// The secret of a project's hook.
    pub async fn hook(&self, project: &str) -> Result<Option<String>, DbError> {
        let query = "SELECT secret FROM hooks WHERE project = $1";
        read!(self, "read a hook", fetch_optional, sqlx::query_scalar(query).bind(clean(project)))
    }

    /// All channels, by project and name.
    pub async fn channels(&self) -> Result<Vec<ChannelRow>, DbError> {
        let query = "SELECT id, project, body, event, digest_at FROM channels";
        let rows: Vec<RawChannel> = read!(self, "read the channels", fetch_all, sqlx::query_as(query))?;
        let mut channels: Vec<ChannelRow> = rows.into_iter().filter_map(RawChannel::known).collect();
        channels.sort_by(|a, b| (&a.project, &a.channel.name).cmp(&(&b.project, &b.channel.name)));
        Ok(channels)
    }

    /// Removes a channel with all that was on its way to it; whether there was one.
    pub async fn remove_channel(&self, project: &str, name: &str) -> Result<bool, DbError> {
        let query = "DELETE FROM channels WHERE project = $1 AND name = $2";
        let removed =
            change!(self, "remove a channel", sqlx::query(query).bind(clean(project)).bind(clean(name)))?;
        Ok(removed > 0)
    }

    /// What a channel knows of tests.
    pub async fn told(&self, channel: Uuid) -> Result<BTreeMap<String, Told>, DbError> {
        let query = "SELECT test, body FROM told WHERE channel = $1";
        let rows: Vec<(String, String)> =
            read!(self, "read what a channel was told", fetch_all, sqlx::query_as(query).bind(channel))?;
        let known = |(test, body): (String, String)| Some((test, serde_json::from_str(&body).ok()?));
        Ok(rows.into_iter().filter_map(known).collect())
    }

    /// Records what follows from an event. Repeating it changes nothing.
    pub async fn follow_event(
        &self,
        channel: Uuid,
        followed: &Followed,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        match self {
            Db::Sqlite(store) => {
                async {
                    let mut transaction = store.begin().await?;
                    follow!(transaction, channel, followed, now);
                    transaction.commit().await
                }
                .await
            }
            Db::Postgres(store) => {
                postgres::in_time(async {
                    let mut transaction = store.begin().await?;
                    follow!(transaction, channel, followed, now);
                    transaction.commit().await
                })
                .await
            }
        }
        .map_err(|source| DbError::from_driver("record what is to be told", source))
    }

    /// Deliveries that may be tried at `now`, the oldest first.
    pub async fn due_deliveries(&self, now: UnixMicros, limit: u32) -> Result<Vec<DeliveryRow>, DbError> {
        let query = "SELECT * FROM deliveries WHERE next_at <= $1 ORDER BY next_at, id LIMIT $2";
        let rows: Vec<RawDelivery> = read!(
            self,
            "read what is to be delivered",
            fetch_all,
            sqlx::query_as(query).bind(now).bind(i64::from(limit))
        )?;
        Ok(rows.into_iter().filter_map(RawDelivery::known).collect())
    }

    /// Deliveries of a project that are on their way or dead, and the last ones that arrived.
    pub async fn deliveries(&self, project: &str, limit: u32) -> Result<Vec<DeliveryRow>, DbError> {
        let query = "SELECT deliveries.* FROM deliveries JOIN channels ON channels.id = deliveries.channel
                     WHERE channels.project = $1
                     ORDER BY CASE WHEN deliveries.delivered_at IS NULL THEN 0 ELSE 1 END,
                         deliveries.created_at DESC, deliveries.id LIMIT $2";
        let rows: Vec<RawDelivery> = read!(
            self,
            "read deliveries",
            fetch_all,
            sqlx::query_as(query).bind(clean(project)).bind(i64::from(limit))
        )?;
        Ok(rows.into_iter().filter_map(RawDelivery::known).collect())
    }

    /// Where the last message of a cause was put.
    pub async fn thread_of(&self, channel: Uuid, cause: &str) -> Result<Option<String>, DbError> {
        let query = "SELECT thread FROM deliveries WHERE channel = $1 AND cause = $2 AND thread IS NOT NULL
                     ORDER BY created_at DESC LIMIT 1";
        let found: Option<Option<String>> = read!(
            self,
            "read where a cause was told",
            fetch_optional,
            sqlx::query_scalar(query).bind(channel).bind(clean(cause))
        )?;
        Ok(found.flatten())
    }

    /// Records that a delivery arrived.
    pub async fn delivered(&self, id: Uuid, thread: Option<&str>, now: UnixMicros) -> Result<(), DbError> {
        let query = "UPDATE deliveries SET tries = tries + 1, next_at = NULL, delivered_at = $2, thread = $3,
                         last_error = NULL WHERE id = $1";
        change!(self, "record a delivery", sqlx::query(query).bind(id).bind(now).bind(thread.map(clean)))?;
        Ok(())
    }

    /// Records a try in vain: it is tried again at `next_at`, or dead if that is none.
    pub async fn not_delivered(
        &self,
        id: Uuid,
        error: &str,
        next_at: Option<UnixMicros>,
        now: UnixMicros,
    ) -> Result<(), DbError> {
        let query = "UPDATE deliveries SET tries = tries + 1, next_at = $2, died_at = $3, last_error = $4
                     WHERE id = $1";
        let died_at = next_at.is_none().then_some(now);
        change!(
            self,
            "record a delivery in vain",
            sqlx::query(query).bind(id).bind(next_at).bind(died_at).bind(clean(error))
        )?;
        Ok(())
    }

    /// Tries a project's dead deliveries again; gives how many.
    pub async fn revive_deliveries(&self, project: &str, now: UnixMicros) -> Result<u64, DbError> {
        let query = "UPDATE deliveries SET tries = 0, next_at = $2, died_at = NULL
                     WHERE died_at IS NOT NULL AND delivered_at IS NULL
                       AND channel IN (SELECT id FROM channels WHERE project = $1)";
        change!(self, "try dead deliveries again", sqlx::query(query).bind(clean(project)).bind(now))
    }

    /// Forgets deliveries that arrived before `before`.
    pub async fn forget_deliveries(&self, before: UnixMicros) -> Result<u64, DbError> {
        let query = "DELETE FROM deliveries WHERE delivered_at < $1";
        change!(self, "forget deliveries", sqlx::query(query).bind(before))
    }
}
