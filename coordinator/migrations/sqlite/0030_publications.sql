-- What keeps copies apart and finished attempts: a publication is begun before it is sent, a job that was
-- handed back keeps what was made of it, and what cannot be read keeps its body.

ALTER TABLE jobs ADD COLUMN begun INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN begun_at INTEGER;
ALTER TABLE jobs ADD COLUMN lost_leases INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN made TEXT;
ALTER TABLE workers ADD COLUMN trouble TEXT;

CREATE TABLE parked (
    id      BLOB PRIMARY KEY NOT NULL,
    came_at INTEGER NOT NULL,
    origin  TEXT,
    reason  TEXT NOT NULL,
    body    BLOB NOT NULL
) STRICT;
