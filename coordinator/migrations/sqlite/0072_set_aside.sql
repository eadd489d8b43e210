-- Workers whose attempts in a sweep do not count, since something was wrong with their machine; and how often a job was
-- made anew for that.
CREATE TABLE set_aside (
    sweep   BLOB    NOT NULL REFERENCES sweeps (id),
    worker  TEXT    NOT NULL,
    project TEXT    NOT NULL,
    why     TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (sweep, worker)
) STRICT;
CREATE INDEX set_aside_by_time ON set_aside (at);
ALTER TABLE jobs ADD COLUMN again INTEGER NOT NULL DEFAULT 0;
