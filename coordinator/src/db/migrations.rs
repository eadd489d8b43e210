//! The schema, step by step: the same versions for both databases. A released step never changes.

use super::error::DbError;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migrate, Migration, MigrationType, Migrator};

struct Step {
    version: i64,
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// What a driver sees of a database: schema, version of the server, its clock, whether tables may be made.
pub(super) type Seen = (Option<i64>, String, Option<i64>, bool);

const STEPS: &[Step] = &[
    Step {
        version: 1,
        name: "first",
        sqlite: include_str!("../../migrations/sqlite/0001_first.sql"),
        postgres: include_str!("../../migrations/postgres/0001_first.sql"),
    },
    Step {
        version: 2,
        name: "fingerprints",
        sqlite: include_str!("../../migrations/sqlite/0002_fingerprints.sql"),
        postgres: include_str!("../../migrations/postgres/0002_fingerprints.sql"),
    },
    Step {
        version: 3,
        name: "entities",
        sqlite: include_str!("../../migrations/sqlite/0003_entities.sql"),
        postgres: include_str!("../../migrations/postgres/0003_entities.sql"),
    },
    Step {
        version: 10,
        name: "events and leases",
        sqlite: include_str!("../../migrations/sqlite/0010_events_and_leases.sql"),
        postgres: include_str!("../../migrations/postgres/0010_events_and_leases.sql"),
    },
    Step {
        version: 11,
        name: "tenants",
        sqlite: include_str!("../../migrations/sqlite/0011_tenants.sql"),
        postgres: include_str!("../../migrations/postgres/0011_tenants.sql"),
    },
    Step {
        version: 12,
        name: "fairness",
        sqlite: include_str!("../../migrations/sqlite/0012_fairness.sql"),
        postgres: include_str!("../../migrations/postgres/0012_fairness.sql"),
    },
    Step {
        version: 13,
        name: "schedules",
        sqlite: include_str!("../../migrations/sqlite/0013_schedules.sql"),
        postgres: include_str!("../../migrations/postgres/0013_schedules.sql"),
    },
    Step {
        version: 20,
        name: "ci",
        sqlite: include_str!("../../migrations/sqlite/0020_ci.sql"),
        postgres: include_str!("../../migrations/postgres/0020_ci.sql"),
    },
    Step {
        version: 30,
        name: "publications",
        sqlite: include_str!("../../migrations/sqlite/0030_publications.sql"),
        postgres: include_str!("../../migrations/postgres/0030_publications.sql"),
    },
    Step {
        version: 40,
        name: "history",
        sqlite: include_str!("../../migrations/sqlite/0040_history.sql"),
        postgres: include_str!("../../migrations/postgres/0040_history.sql"),
    },
    Step {
        version: 41,
        name: "leases of blobs",
        sqlite: include_str!("../../migrations/sqlite/0041_leases_of_blobs.sql"),
        postgres: include_str!("../../migrations/postgres/0041_leases_of_blobs.sql"),
    },
    Step {
        version: 50,
        name: "quarantine",
        sqlite: include_str!("../../migrations/sqlite/0050_quarantine.sql"),
        postgres: include_str!("../../migrations/postgres/0050_quarantine.sql"),
    },
    Step {
        version: 51,
        name: "notifications",
        sqlite: include_str!("../../migrations/sqlite/0051_notifications.sql"),
        postgres: include_str!("../../migrations/postgres/0051_notifications.sql"),
    },
    Step {
        version: 52,
        name: "hooks",
        sqlite: include_str!("../../migrations/sqlite/0052_hooks.sql"),
        postgres: include_str!("../../migrations/postgres/0052_hooks.sql"),
    },
    Step {
        version: 60,
        name: "links",
        sqlite: include_str!("../../migrations/sqlite/0060_links.sql"),
        postgres: include_str!("../../migrations/postgres/0060_links.sql"),
    },
    Step {
        version: 61,
        name: "firings",
        sqlite: include_str!("../../migrations/sqlite/0061_firings.sql"),
        postgres: include_str!("../../migrations/postgres/0061_firings.sql"),
    },
    Step {
        version: 62,
        name: "stored bytes",
        sqlite: include_str!("../../migrations/sqlite/0062_stored_bytes.sql"),
        postgres: include_str!("../../migrations/postgres/0062_stored_bytes.sql"),
    },
    Step {
        version: 63,
        name: "repair outcomes",
        sqlite: include_str!("../../migrations/sqlite/0063_repair_outcomes.sql"),
        postgres: include_str!("../../migrations/postgres/0063_repair_outcomes.sql"),
    },
    Step {
        version: 70,
        name: "aggregates by age",
        sqlite: include_str!("../../migrations/sqlite/0070_aggregates_by_age.sql"),
        postgres: include_str!("../../migrations/postgres/0070_aggregates_by_age.sql"),
    },
    Step {
        version: 71,
        name: "aggregates by day",
        sqlite: include_str!("../../migrations/sqlite/0071_aggregates_by_day.sql"),
        postgres: include_str!("../../migrations/postgres/0071_aggregates_by_day.sql"),
    },
    Step {
        version: 72,
        name: "set aside",
        sqlite: include_str!("../../migrations/sqlite/0072_set_aside.sql"),
        postgres: include_str!("../../migrations/postgres/0072_set_aside.sql"),
    },
    Step {
        version: 73,
        name: "repairs",
        sqlite: include_str!("../../migrations/sqlite/0073_repairs.sql"),
        postgres: include_str!("../../migrations/postgres/0073_repairs.sql"),
    },
    Step {
        version: 74,
        name: "taken",
        sqlite: include_str!("../../migrations/sqlite/0074_taken.sql"),
        postgres: include_str!("../../migrations/postgres/0074_taken.sql"),
    },
];

/// Applies the steps that a database lacks. One with a step of a newer program is refused.
pub(super) async fn run(migrator: &Migrator, connection: &mut impl Migrate) -> Result<(), DbError> {
    // Not `Migrator::run`: its future cannot be sent to another thread (a limit of the compiler).
    let done = migrator.run_direct(None, connection, false).await;
    done.map_err(|error| DbError::from_migration(error, newest()))
}

/// The newest step that this program knows.
pub(super) fn newest() -> i64 {
    STEPS.iter().map(|step| step.version).max().expect("there is a first step")
}

pub(super) fn sqlite() -> Migrator {
    migrator(|step| step.sqlite)
}

pub(super) fn postgres() -> Migrator {
    migrator(|step| step.postgres)
}

fn migrator(text: impl Fn(&Step) -> &'static str) -> Migrator {
    let migrations = STEPS.iter().map(|step| {
        Migration::new(
            step.version,
            step.name.into(),
            MigrationType::Simple,
            text(step).into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}
