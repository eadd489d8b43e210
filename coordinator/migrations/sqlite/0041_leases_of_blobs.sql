-- Blobs that somebody is about to refer to: they are not collected until then.

CREATE TABLE blob_leases (
    digest TEXT PRIMARY KEY NOT NULL,
    until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
