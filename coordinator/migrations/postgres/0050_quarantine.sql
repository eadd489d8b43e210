-- Tests that may fail until a day, what was done to them, and what a project has decided.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE quarantine (
    -- SHA-256 over project, test and signature.
    subject     BYTEA PRIMARY KEY NOT NULL,
    project     TEXT NOT NULL,
    test        TEXT NOT NULL,
    -- Null: every failure.
    signature   TEXT,
    reason      TEXT NOT NULL,
    owner       TEXT,
    ticket      TEXT,
    -- As it was said: what is no date has expired.
    expires     TEXT NOT NULL,
    added_at    BIGINT NOT NULL,
    added_by    TEXT NOT NULL,
    origin      TEXT NOT NULL,
    runs        BIGINT NOT NULL DEFAULT 0,
    failures    BIGINT NOT NULL DEFAULT 0,
    measured_by UUID,
    measured_at BIGINT
);
CREATE INDEX quarantine_of_project ON quarantine (project);

CREATE TABLE quarantine_log (
    id        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        BIGINT NOT NULL,
    project   TEXT NOT NULL,
    test      TEXT NOT NULL,
    signature TEXT,
    action    TEXT NOT NULL,
    who       TEXT NOT NULL,
    why       TEXT NOT NULL
);
CREATE INDEX quarantine_log_of_project ON quarantine_log (project, id);

CREATE TABLE quarantine_rules (
    project TEXT PRIMARY KEY NOT NULL,
    -- JSON.
    body    TEXT NOT NULL
);
