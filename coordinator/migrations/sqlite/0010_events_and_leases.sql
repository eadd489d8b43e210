-- What happened, for whoever comes later; who leads the loops; how far running sweeps are.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE events (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- What is noticed twice is recorded once.
    event_key TEXT NOT NULL UNIQUE,
    at        INTEGER NOT NULL,
    -- Null: it concerns the farm.
    project   TEXT,
    sweep     BLOB,
    -- JSON.
    body      TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_sweep ON events (sweep, id);

CREATE TABLE leases (
    name       TEXT PRIMARY KEY NOT NULL,
    holder     TEXT NOT NULL,
    -- By the database's clock.
    expires_at INTEGER NOT NULL
) STRICT;

CREATE TABLE sweep_progress (
    sweep BLOB PRIMARY KEY NOT NULL REFERENCES sweeps (id),
    at    INTEGER NOT NULL,
    -- JSON.
    body  TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Ended sweeps that still owe a report.
CREATE INDEX sweeps_closing ON sweeps (created_at, id) WHERE state = 'cancelled' AND report IS NULL;
