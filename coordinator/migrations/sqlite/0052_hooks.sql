-- Projects whose pull requests may ask for reruns.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE hooks (
    project    TEXT PRIMARY KEY NOT NULL,
    secret     TEXT NOT NULL,
    created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
