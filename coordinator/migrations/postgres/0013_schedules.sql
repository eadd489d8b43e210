-- Sweeps that begin by the clock.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE schedules (
    id         UUID PRIMARY KEY NOT NULL,
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    cron       TEXT NOT NULL,
    zone       TEXT NOT NULL,
    -- JSON.
    submission TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    -- Null: never again, or paused.
    next_at    BIGINT,
    paused_at  BIGINT,
    last_at    BIGINT,
    last_sweep UUID,
    skipped_at BIGINT,
    UNIQUE (project, name)
);
CREATE INDEX schedules_due ON schedules (next_at) WHERE next_at IS NOT NULL AND paused_at IS NULL;
