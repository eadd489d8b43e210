-- What questions over all tests of a project read, what CI's failures cost, and how renamed tests are known.
-- The other dialect's file of the same number declares the same tables and names.

-- A day of a project in columns: of every test that ran, how often, how it ended and how long it took.
CREATE TABLE project_days (
    project BIGINT NOT NULL REFERENCES projects (number),
    class   TEXT NOT NULL,
    day     BIGINT NOT NULL,
    packed  BYTEA NOT NULL,
    PRIMARY KEY (project, class, day)
);

-- What the failing attempt is evidence of. Null: what its run is.
ALTER TABLE failures ADD COLUMN class TEXT;
-- Whether the test's last attempt in the report failed. Null: nobody looked.
ALTER TABLE failures ADD COLUMN broke BIGINT;

-- Which attempt at the CI job it is, from 1. Null: the CI system did not say.
ALTER TABLE runs ADD COLUMN attempt BIGINT;
-- Attempts on many tests that were evidence of its class. Null: the whole run is one.
ALTER TABLE runs ADD COLUMN occasions BIGINT;

-- A digest of the test's own code, whatever it and its file are called. Null: nobody looked.
ALTER TABLE tests ADD COLUMN body TEXT;

-- Packed already: the server's compression would cost time and save nothing.
ALTER TABLE project_days ALTER COLUMN packed SET STORAGE EXTERNAL;
ALTER TABLE aggregates ALTER COLUMN packed SET STORAGE EXTERNAL;
