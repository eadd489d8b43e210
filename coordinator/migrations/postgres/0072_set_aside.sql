-- Workers whose attempts in a sweep do not count, since something was wrong with their machine; and how often a job was
-- made anew for that.
CREATE TABLE set_aside (
    sweep   UUID   NOT NULL REFERENCES sweeps (id),
    worker  TEXT   NOT NULL,
    project TEXT   NOT NULL,
    why     TEXT   NOT NULL,
    at      BIGINT NOT NULL,
    PRIMARY KEY (sweep, worker)
);
CREATE INDEX set_aside_by_time ON set_aside (at);
ALTER TABLE jobs ADD COLUMN again BIGINT NOT NULL DEFAULT 0;
