-- What CI sends, and what remains of samples when points have expired.

ALTER TABLE runs ADD COLUMN variant TEXT;
-- What the CI system said of its job, as JSON.
ALTER TABLE runs ADD COLUMN ci TEXT;
-- Why its outcomes count for nothing.
ALTER TABLE runs ADD COLUMN incident TEXT;
CREATE INDEX runs_at_revision ON runs (project, revision, variant);

-- Reports that were read, by their content: a report counts once in a run.
CREATE TABLE uploads (
    run         BLOB NOT NULL REFERENCES runs (id),
    digest      TEXT NOT NULL,
    name        TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    -- JSON: counts and problems. Null: reading it did not end.
    summary     TEXT,
    -- Tests that ran, and of these that failed at their last attempt.
    ran         INTEGER NOT NULL DEFAULT 0,
    failed      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (run, digest)
) STRICT, WITHOUT ROWID;

-- Which tests failed in which run, by signature. The batch makes a repetition change nothing.
CREATE TABLE failures (
    test      INTEGER NOT NULL REFERENCES tests (number),
    run       BLOB NOT NULL REFERENCES runs (id),
    batch     BLOB NOT NULL,
    -- An unsigned number, by its bits.
    signature INTEGER NOT NULL,
    count     INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    message   TEXT NOT NULL,
    PRIMARY KEY (test, run, batch, signature)
) STRICT, WITHOUT ROWID;
CREATE INDEX failures_of_run ON failures (run, test);

-- A pass and a failure of one test on one revision and variant.
CREATE TABLE flips (
    test     INTEGER NOT NULL REFERENCES tests (number),
    revision TEXT NOT NULL,
    variant  TEXT NOT NULL,
    branch   TEXT,
    run      BLOB NOT NULL REFERENCES runs (id),
    at       INTEGER NOT NULL,
    PRIMARY KEY (test, revision, variant)
) STRICT, WITHOUT ROWID;
CREATE INDEX flips_of_run ON flips (run);

-- Sums over points of one test and treatment class: the hours of a day, or the days of a month, packed.
CREATE TABLE aggregates (
    test   INTEGER NOT NULL REFERENCES tests (number),
    -- 'hour' or 'day': what is summed up.
    span   TEXT NOT NULL,
    class  TEXT NOT NULL,
    -- The first day that the pack is of, counted from the epoch.
    start  INTEGER NOT NULL,
    points INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (test, span, class, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX aggregates_by_age ON aggregates (span, start);

-- Days of a project whose points were summed up, and how many there were.
CREATE TABLE aggregated_days (
    project INTEGER NOT NULL REFERENCES projects (number),
    day     INTEGER NOT NULL,
    points  INTEGER NOT NULL,
    at      INTEGER NOT NULL,
    -- Why the day is not whole, if it is not.
    gap     TEXT,
    PRIMARY KEY (project, day)
) STRICT, WITHOUT ROWID;

-- A test that is what another one was, renamed or moved: said by somebody, and taken back by them.
CREATE TABLE test_links (
    test        INTEGER NOT NULL REFERENCES tests (number),
    earlier     INTEGER NOT NULL REFERENCES tests (number),
    reason      TEXT NOT NULL,
    linked_at   INTEGER NOT NULL,
    unlinked_at INTEGER,
    PRIMARY KEY (test, earlier)
) STRICT, WITHOUT ROWID;
