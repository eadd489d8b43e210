-- Where a schedule's sources come from, and each of its firings.
-- The other dialect's file of the same number declares the same tables and names.

-- JSON; null: the project's last uploaded snapshot.
ALTER TABLE schedules ADD COLUMN source TEXT;
-- What opens the source. Shown by nothing.
ALTER TABLE schedules ADD COLUMN secret TEXT;

CREATE TABLE firings (
    -- The sweep that it makes: known before there is one.
    sweep    BLOB PRIMARY KEY NOT NULL,
    schedule BLOB NOT NULL,
    due      INTEGER NOT NULL,
    -- fetching, fired or failed.
    state    TEXT NOT NULL,
    tries    INTEGER NOT NULL,
    -- When its source is fetched, or fetched again.
    next_at  INTEGER,
    ended_at INTEGER,
    revision TEXT,
    -- Why it was in vain so far.
    words    TEXT,
    -- JSON: what was left out.
    notes    TEXT,
    -- The sweep of known tests beside it, and what that said: JSON.
    control  BLOB,
    trust    TEXT
) STRICT;
CREATE UNIQUE INDEX firings_once ON firings (schedule, due);
CREATE INDEX firings_open ON firings (next_at) WHERE state = 'fetching';
