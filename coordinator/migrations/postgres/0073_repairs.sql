-- Repairs that the farm carries out.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE repairs (
    id         UUID PRIMARY KEY NOT NULL,
    project    TEXT NOT NULL,
    -- queued, running; proved, not_proved, undecided, nothing_fails, failed, cancelled; of what was proved and
    -- accepted: probation; proven, relapsed, unproven.
    state      TEXT NOT NULL,
    -- interactive or bulk.
    class      TEXT NOT NULL,
    -- JSON: what is asked. Digests in it are of blobs.
    request    TEXT NOT NULL,
    -- Who asked, for people.
    source     TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    started_at BIGINT,
    ended_at   BIGINT,
    -- How often a coordinator has begun with it.
    tries      BIGINT NOT NULL,
    -- JSON: what was found and proved.
    told       TEXT,
    -- What is proved, as git diff writes it.
    patch      TEXT,
    -- The blob of the repaired tree, and the tests that it mends: JSON.
    repaired   TEXT,
    mended     TEXT,
    -- JSON: why it failed.
    refusal    TEXT,
    -- The sweep of its further runs, since when, and when it was over.
    probation    UUID,
    accepted_at  BIGINT,
    concluded_at BIGINT
);
CREATE INDEX repairs_of_project ON repairs (project, created_at);
CREATE INDEX repairs_open ON repairs (created_at) WHERE state IN ('queued', 'running', 'probation');

-- Whether repairs are proposed for tests that its sweeps find newly flaky.
ALTER TABLE schedules ADD COLUMN proposes BOOLEAN NOT NULL DEFAULT FALSE;
