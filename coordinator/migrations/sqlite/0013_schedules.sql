-- Sweeps that begin by the clock.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE schedules (
    id         BLOB PRIMARY KEY NOT NULL,
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    cron       TEXT NOT NULL,
    zone       TEXT NOT NULL,
    -- JSON.
    submission TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- Null: never again, or paused.
    next_at    INTEGER,
    paused_at  INTEGER,
    last_at    INTEGER,
    last_sweep BLOB,
    skipped_at INTEGER,
    UNIQUE (project, name)
) STRICT;
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL AND paused_at IS NULL;
