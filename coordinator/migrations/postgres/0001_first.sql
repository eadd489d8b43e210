-- Sweeps, jobs, verdicts, workers and tokens. Times are microseconds since the Unix epoch.
-- The other dialect's file of the same number declares the same tables and names.

CREATE TABLE sweeps (
    id          UUID PRIMARY KEY NOT NULL,
    project     TEXT NOT NULL,
    revision    TEXT,
    question    TEXT NOT NULL,
    context     TEXT NOT NULL,
    class       TEXT NOT NULL CHECK (class IN ('interactive', 'bulk')),
    -- An unsigned number, by its bits.
    seed        BIGINT NOT NULL,
    source      TEXT NOT NULL,
    created_at  BIGINT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('running', 'answered', 'interrupted', 'cancelled', 'failed')),
    -- JSON, of a failed sweep.
    refusal     TEXT CHECK ((state = 'failed') = (refusal IS NOT NULL)),
    listing     TEXT,
    report      TEXT,
    finished_at BIGINT CHECK ((state = 'running') = (finished_at IS NULL))
);
CREATE INDEX sweeps_by_age ON sweeps (created_at, id);
CREATE INDEX sweeps_running ON sweeps (created_at, id) WHERE state = 'running';

CREATE TABLE jobs (
    id             UUID PRIMARY KEY NOT NULL,
    sweep          UUID NOT NULL REFERENCES sweeps (id),
    -- Its place among the jobs inserted with it.
    ordinal        BIGINT NOT NULL,
    job_key        TEXT NOT NULL,
    class          TEXT NOT NULL CHECK (class IN ('interactive', 'bulk')),
    spec           TEXT NOT NULL,
    attempts       BIGINT NOT NULL,
    created_at     BIGINT NOT NULL,
    state          TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'queued', 'settled')),
    available_at   BIGINT NOT NULL,
    publications   BIGINT NOT NULL DEFAULT 0,
    infra_failures BIGINT NOT NULL DEFAULT 0,
    last_error     TEXT,
    -- Of a queued job.
    queued_at      BIGINT CHECK (state <> 'queued' OR queued_at IS NOT NULL),
    worker         TEXT,
    last_news      BIGINT CHECK (state <> 'queued' OR last_news IS NOT NULL),
    -- Of a settled job; the settlement is JSON.
    ending         TEXT CHECK (ending IN ('done', 'refused', 'dead', 'cancelled')),
    settlement     TEXT CHECK ((state = 'settled') = (settlement IS NOT NULL)),
    settled_at     BIGINT CHECK ((state = 'settled') = (settled_at IS NOT NULL)),
    -- When an operator took a dead job off the list.
    discarded_at   BIGINT,
    CHECK ((state = 'settled') = (ending IS NOT NULL))
);
CREATE INDEX jobs_of_sweep ON jobs (sweep, created_at, ordinal, id);
-- 'interactive' sorts after 'bulk' and goes first.
CREATE INDEX jobs_pending ON jobs (class DESC, created_at, ordinal, id) WHERE state = 'pending';
CREATE INDEX jobs_queued ON jobs (class, last_news) WHERE state = 'queued';
CREATE INDEX jobs_dead ON jobs (settled_at) WHERE ending = 'dead' AND discarded_at IS NULL;

CREATE TABLE verdicts (
    sweep       UUID NOT NULL REFERENCES sweeps (id),
    -- SHA-256 over project and test: test ids can be longer than an index entry may be.
    subject     BYTEA NOT NULL,
    project     TEXT NOT NULL,
    test        TEXT NOT NULL,
    verdict     TEXT NOT NULL,
    attempts    BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    estimate    DOUBLE PRECISION NOT NULL,
    lower       DOUBLE PRECISION NOT NULL,
    upper       DOUBLE PRECISION NOT NULL,
    score       DOUBLE PRECISION NOT NULL,
    p50_ms      DOUBLE PRECISION NOT NULL,
    finished_at BIGINT NOT NULL,
    PRIMARY KEY (sweep, subject)
);
CREATE INDEX verdicts_of_test ON verdicts (subject, finished_at);

CREATE TABLE workers (
    id       TEXT PRIMARY KEY NOT NULL,
    version  TEXT NOT NULL,
    slots    BIGINT NOT NULL,
    seen_at  BIGINT NOT NULL,
    draining BIGINT NOT NULL CHECK (draining IN (0, 1)),
    jobs     BIGINT NOT NULL
);

CREATE TABLE tokens (
    id         TEXT PRIMARY KEY NOT NULL,
    kind       TEXT NOT NULL CHECK (kind IN ('submit', 'read', 'admin')),
    hash       TEXT NOT NULL,
    label      TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    revoked_at BIGINT,
    last_used  BIGINT
);
