-- Tests that may fail until a day, what was done to them, and what a project has decided.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE quarantine (
    -- SHA-256 over project, test and signature.
    subject     BLOB PRIMARY KEY NOT NULL,
    project     TEXT NOT NULL,
    test        TEXT NOT NULL,
    -- Null: every failure.
    signature   TEXT,
    reason      TEXT NOT NULL,
    owner       TEXT,
    ticket      TEXT,
    -- As it was said: what is no date has expired.
    expires     TEXT NOT NULL,
    added_at    INTEGER NOT NULL,
    added_by    TEXT NOT NULL,
    origin      TEXT NOT NULL,
    runs        INTEGER NOT NULL DEFAULT 0,
    failures    INTEGER NOT NULL DEFAULT 0,
    measured_by BLOB,
    measured_at INTEGER
) STRICT, WITHOUT ROWID;
CREATE INDEX quarantine_of_project ON quarantine (project);

CREATE TABLE quarantine_log (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    at        INTEGER NOT NULL,
    project   TEXT NOT NULL,
    test      TEXT NOT NULL,
    signature TEXT,
    action    TEXT NOT NULL,
    who       TEXT NOT NULL,
    why       TEXT NOT NULL
) STRICT;
CREATE INDEX quarantine_log_of_project ON quarantine_log (project, id);

CREATE TABLE quarantine_rules (
    project TEXT PRIMARY KEY NOT NULL,
    -- JSON.
    body    TEXT NOT NULL
) STRICT, WITHOUT ROWID;
