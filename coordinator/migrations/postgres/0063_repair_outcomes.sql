-- How proposed repairs fared: what orders the next ones.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE repair_outcomes (
    -- Chosen by whoever tried it: told twice, it counts once.
    id       UUID PRIMARY KEY NOT NULL,
    project  TEXT NOT NULL,
    -- How it was mended, and what.
    strategy TEXT NOT NULL,
    failure  TEXT NOT NULL,
    proved   BOOLEAN NOT NULL,
    at       BIGINT NOT NULL
);
CREATE INDEX repair_outcomes_of_project ON repair_outcomes (project, at);
