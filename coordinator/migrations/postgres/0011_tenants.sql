-- Tokens of projects and scopes; which blobs a project may read.
-- The other dialect's file of the same number declares the same tables and names.

-- JSON lists of words. Null: what the kind includes; all projects.
ALTER TABLE tokens ADD COLUMN scopes TEXT;
ALTER TABLE tokens ADD COLUMN projects TEXT;

CREATE TABLE project_blobs (
    project TEXT NOT NULL,
    digest  TEXT NOT NULL,
    PRIMARY KEY (project, digest)
);
