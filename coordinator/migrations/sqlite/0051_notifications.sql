-- Who is told of what, and what is on its way.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE channels (
    id         BLOB PRIMARY KEY NOT NULL,
    project    TEXT NOT NULL,
    name       TEXT NOT NULL,
    -- JSON, with what is secret.
    body       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    -- The last recorded event that was looked at.
    event      INTEGER NOT NULL,
    -- When the digest comes next. Null: never.
    digest_at  INTEGER,
    UNIQUE (project, name)
) STRICT;

CREATE TABLE deliveries (
    id           BLOB PRIMARY KEY NOT NULL,
    channel      BLOB NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    cause        TEXT NOT NULL,
    -- JSON: the message.
    body         TEXT NOT NULL,
    created_at   INTEGER NOT NULL,
    tries        INTEGER NOT NULL DEFAULT 0,
    -- Null: delivered, or dead.
    next_at      INTEGER,
    delivered_at INTEGER,
    died_at      INTEGER,
    last_error   TEXT,
    -- Where it was put: an issue's number.
    thread       TEXT
) STRICT;
CREATE INDEX deliveries_due ON deliveries (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX deliveries_of_channel ON deliveries (channel, created_at);

-- What a channel was told of a test.
CREATE TABLE told (
    channel BLOB NOT NULL REFERENCES channels (id) ON DELETE CASCADE,
    -- SHA-256 of the test's id: ids can be longer than an index entry may be.
    subject BLOB NOT NULL,
    test    TEXT NOT NULL,
    -- JSON.
    body    TEXT NOT NULL,
    PRIMARY KEY (channel, subject)
) STRICT, WITHOUT ROWID;
