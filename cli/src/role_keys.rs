//! The settings of a farm's roles: every key of their configuration file.

use flakefarm_project::settings::{Kind, Setting};

/// All of them.
pub(crate) static ROLE_KEYS: &[Setting] = &[
    Setting::new("stores.database", Kind::Text).variable("FLAKEFARM_DATABASE").secret(),
    Setting::new("stores.queue", Kind::Text).variable("FLAKEFARM_QUEUE").secret(),
    Setting::new("stores.samples", Kind::Text).variable("FLAKEFARM_SAMPLES").secret(),
    Setting::new("stores.blobs", Kind::Text).variable("FLAKEFARM_BLOBS"),
    Setting::new("coordinator.listen", Kind::Text).variable("FLAKEFARM_LISTEN").default("127.0.0.1:7878"),
    Setting::new("coordinator.lease", Kind::Duration).variable("FLAKEFARM_LEASE").default("10m"),
    Setting::new("coordinator.admin_token_file", Kind::Text).variable("FLAKEFARM_ADMIN_TOKEN_FILE"),
    Setting::new("coordinator.limit_samples", Kind::Whole { least: 1, most: u64::MAX })
        .variable("FLAKEFARM_LIMIT_SAMPLES")
        .default("1000000"),
    Setting::new("coordinator.quota_attempts", Kind::Whole { least: 1, most: u64::MAX })
        .variable("FLAKEFARM_QUOTA_ATTEMPTS")
        .default("5000000"),
    Setting::new("coordinator.quota_jobs", Kind::Whole { least: 1, most: u64::MAX })
        .variable("FLAKEFARM_QUOTA_JOBS")
        .default("10000"),
    Setting::new("coordinator.quota_bytes", Kind::Size).variable("FLAKEFARM_QUOTA_BYTES").default("100GiB"),
    Setting::new("coordinator.fetch_size", Kind::Size).variable("FLAKEFARM_FETCH_SIZE").default("2GiB"),
    Setting::new("coordinator.fetch_time", Kind::Duration).variable("FLAKEFARM_FETCH_TIME").default("10m"),
    Setting::new("coordinator.repairs", Kind::Whole { least: 0, most: 64 })
        .variable("FLAKEFARM_REPAIRS")
        .default("2"),
    Setting::new("coordinator.git_hosts", Kind::Texts).variable("FLAKEFARM_GIT_HOSTS"),
    Setting::new("history.keep_points", Kind::Duration).variable("FLAKEFARM_KEEP_POINTS").default("14d"),
    Setting::new("history.keep_hourly", Kind::Duration).variable("FLAKEFARM_KEEP_HOURLY").default("90d"),
    Setting::new("history.keep_daily", Kind::Duration).variable("FLAKEFARM_KEEP_DAILY").default("400d"),
    Setting::new("history.keep_artifacts", Kind::Duration)
        .variable("FLAKEFARM_KEEP_ARTIFACTS")
        .default("90d"),
    Setting::new("history.keep_new_blobs", Kind::Duration)
        .variable("FLAKEFARM_KEEP_NEW_BLOBS")
        .default("24h"),
    Setting::new("worker.ceilings", Kind::Text).variable("FLAKEFARM_CEILINGS"),
    Setting::new("worker.id", Kind::Text).variable("FLAKEFARM_WORKER_ID"),
    Setting::new("worker.runtime", Kind::Text).variable("FLAKEFARM_RUNTIME").default("auto"),
    Setting::new("worker.slots", Kind::Whole { least: 1, most: 1_024 }).variable("FLAKEFARM_SLOTS"),
    Setting::new("worker.grace", Kind::Duration).variable("FLAKEFARM_GRACE").default("60s"),
    Setting::new("worker.spool", Kind::Text).variable("FLAKEFARM_SPOOL"),
    Setting::new("worker.health_listen", Kind::Text).variable("FLAKEFARM_HEALTH_LISTEN"),
];
