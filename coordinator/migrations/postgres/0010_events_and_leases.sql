-- What happened, for whoever comes later; who leads the loops; how far running sweeps are.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE events (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What is noticed twice is recorded once.
    event_key TEXT NOT NULL UNIQUE,
    at        BIGINT NOT NULL,
    -- Null: it concerns the farm.
    project   TEXT,
    sweep     UUID,
    -- JSON.
    body      TEXT NOT NULL
);
CREATE INDEX events_of_sweep ON events (sweep, id);

CREATE TABLE leases (
    name       TEXT PRIMARY KEY NOT NULL,
    holder     TEXT NOT NULL,
    -- By the database's clock.
    expires_at BIGINT NOT NULL
);

CREATE TABLE sweep_progress (
    sweep UUID PRIMARY KEY NOT NULL REFERENCES sweeps (id),
    at    BIGINT NOT NULL,
    -- JSON.
    body  TEXT NOT NULL
);

-- Ended sweeps that still owe a report.
CREATE INDEX sweeps_closing ON sweeps (created_at, id) WHERE state = 'cancelled' AND report IS NULL;
