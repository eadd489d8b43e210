-- Projects, tests and runs become entities. And the last time that tables are made anew: words (states,
-- classes, kinds) are checked by the program from now on, because SQLite cannot widen a CHECK.
-- Children are made and dropped before their parents, so that foreign keys hold at every step.

CREATE TABLE sweeps_3 (
    id          BLOB PRIMARY KEY NOT NULL,
    project     TEXT NOT NULL,
    revision    TEXT,
    question    TEXT NOT NULL,
    context     TEXT NOT NULL,
    class       TEXT NOT NULL,
    -- An unsigned number, by its bits.
    seed        INTEGER NOT NULL,
    source      TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    state       TEXT NOT NULL,
    -- JSON, of a failed sweep.
    refusal     TEXT CHECK ((state = 'failed') = (refusal IS NOT NULL)),
    listing     TEXT,
    report      TEXT,
    finished_at INTEGER CHECK ((state = 'running') = (finished_at IS NULL))
) STRICT;
INSERT INTO sweeps_3 SELECT id, project, revision, question, context, class, seed, source, created_at, state,
                            refusal, listing, report, finished_at FROM sweeps;

CREATE TABLE jobs_3 (
    id             BLOB PRIMARY KEY NOT NULL,
    sweep          BLOB NOT NULL REFERENCES sweeps_3 (id),
    -- Its place among the jobs inserted with it.
    ordinal        INTEGER NOT NULL,
    job_key        TEXT NOT NULL,
    class          TEXT NOT NULL,
    spec           TEXT NOT NULL,
    attempts       INTEGER NOT NULL,
    created_at     INTEGER NOT NULL,
    state          TEXT NOT NULL DEFAULT 'pending',
    available_at   INTEGER NOT NULL,
    publications   INTEGER NOT NULL DEFAULT 0,
    infra_failures INTEGER NOT NULL DEFAULT 0,
    last_error     TEXT,
    -- Of a queued job.
    queued_at      INTEGER CHECK (state <> 'queued' OR queued_at IS NOT NULL),
    worker         TEXT,
    last_news      INTEGER CHECK (state <> 'queued' OR last_news IS NOT NULL),
    -- Of a settled job; the settlement is JSON.
    ending         TEXT,
    settlement     TEXT CHECK ((state = 'settled') = (settlement IS NOT NULL)),
    settled_at     INTEGER CHECK ((state = 'settled') = (settled_at IS NOT NULL)),
    -- When an operator took a dead job off the list.
    discarded_at   INTEGER,
    CHECK ((state = 'settled') = (ending IS NOT NULL))
) STRICT;
INSERT INTO jobs_3 SELECT id, sweep, ordinal, job_key, class, spec, attempts, created_at, state, available_at,
                          publications, infra_failures, last_error, queued_at, worker, last_news, ending,
                          settlement, settled_at, discarded_at FROM jobs;

CREATE TABLE verdicts_3 (
    sweep       BLOB NOT NULL REFERENCES sweeps_3 (id),
    -- SHA-256 over project and test: test ids can be longer than an index entry may be.
    subject     BLOB NOT NULL,
    project     TEXT NOT NULL,
    test        TEXT NOT NULL,
    verdict     TEXT NOT NULL,
    attempts    INTEGER NOT NULL,
    failures    INTEGER NOT NULL,
    estimate    REAL NOT NULL,
    lower       REAL NOT NULL,
    upper       REAL NOT NULL,
    score       REAL NOT NULL,
    p50_ms      REAL NOT NULL,
    finished_at INTEGER NOT NULL,
    -- A digest of the test and of all it is known to touch. Null: nobody looked.
    fingerprint TEXT,
    PRIMARY KEY (sweep, subject)
) STRICT, WITHOUT ROWID;
INSERT INTO verdicts_3 SELECT sweep, subject, project, test, verdict, attempts, failures, estimate, lower, upper,
                              score, p50_ms, finished_at, fingerprint FROM verdicts;

DROP TABLE verdicts;
DROP TABLE jobs;
DROP TABLE sweeps;
-- What refers to them follows.
ALTER TABLE sweeps_3 RENAME TO sweeps;
ALTER TABLE jobs_3 RENAME TO jobs;
ALTER TABLE verdicts_3 RENAME TO verdicts;
CREATE INDEX sweeps_by_age ON sweeps (created_at, id);
CREATE INDEX sweeps_running ON sweeps (created_at, id) WHERE state = 'running';
CREATE INDEX sweeps_of_project ON sweeps (project, created_at);
CREATE INDEX jobs_of_sweep ON jobs (sweep, created_at, ordinal, id);
-- 'interactive' sorts after 'bulk' and goes first.
CREATE INDEX jobs_pending ON jobs (class DESC, created_at, ordinal, id) WHERE state = 'pending';
CREATE INDEX jobs_queued ON jobs (class, last_news) WHERE state = 'queued';
CREATE INDEX jobs_dead ON jobs (settled_at) WHERE ending = 'dead' AND discarded_at IS NULL;
CREATE INDEX verdicts_of_test ON verdicts (subject, finished_at);

CREATE TABLE tokens_3 (
    id         TEXT PRIMARY KEY NOT NULL,
    kind       TEXT NOT NULL,
    hash       TEXT NOT NULL,
    label      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    last_used  INTEGER
) STRICT;
INSERT INTO tokens_3 SELECT id, kind, hash, label, created_at, expires_at, revoked_at, last_used FROM tokens;
DROP TABLE tokens;
ALTER TABLE tokens_3 RENAME TO tokens;

CREATE TABLE projects (
    number     INTEGER PRIMARY KEY NOT NULL,
    name       TEXT NOT NULL UNIQUE,
    -- JSON.
    settings   TEXT NOT NULL DEFAULT '{}',
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE tests (
    number     INTEGER PRIMARY KEY NOT NULL,
    project    INTEGER NOT NULL REFERENCES projects (number),
    -- As in verdicts: SHA-256 over the project's name and the test's id.
    subject    BLOB NOT NULL UNIQUE,
    -- As its framework spells it.
    test       TEXT NOT NULL,
    -- Its parts: file, class path, name and parameters, as JSON. Null: nobody looked.
    parts      TEXT,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL
) STRICT;
CREATE INDEX tests_of_project ON tests (project, last_seen);

-- An occasion on which tests were executed: a sweep (of the same id), or a CI job.
CREATE TABLE runs (
    id          BLOB PRIMARY KEY NOT NULL,
    project     INTEGER NOT NULL REFERENCES projects (number),
    origin      TEXT NOT NULL,
    -- The treatment class of its plain attempts: what they may be evidence of.
    class       TEXT NOT NULL,
    -- How attempts were isolated. Null: not by us.
    level       TEXT,
    revision    TEXT,
    branch      TEXT,
    -- The image that tests ran in, by its id.
    environment TEXT,
    started_at  INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
CREATE INDEX runs_of_project ON runs (project, class, started_at);

INSERT INTO projects (name, created_at)
SELECT project, MIN(at) FROM (
    SELECT project, created_at AS at FROM sweeps UNION ALL SELECT project, finished_at FROM verdicts
) GROUP BY project ORDER BY MIN(at), project;

INSERT INTO tests (project, subject, test, first_seen, last_seen)
SELECT projects.number, verdicts.subject, MIN(verdicts.test), MIN(verdicts.finished_at), MAX(verdicts.finished_at)
FROM verdicts JOIN projects ON projects.name = verdicts.project
GROUP BY projects.number, verdicts.subject ORDER BY MIN(verdicts.finished_at), verdicts.subject;

-- Until now only sweeps of the project as it is left verdicts; a question is JSON without spaces.
INSERT INTO runs (id, project, origin, class, level, revision, started_at, finished_at)
SELECT sweeps.id, projects.number,
       CASE WHEN sweeps.question LIKE '%"kind":{"diagnose"%' THEN 'diagnosis'
            WHEN sweeps.question LIKE '%"kind":{"bisect"%' THEN 'bisection'
            ELSE 'sweep' END,
       CASE WHEN sweeps.question LIKE '%"kind":{"diagnose"%' THEN 'diagnosed'
            WHEN sweeps.question LIKE '%"kind":{"bisect"%' THEN 'bisected'
            WHEN sweeps.question LIKE '%"sandbox":"process"%' THEN 'unisolated'
            WHEN EXISTS (SELECT 1 FROM verdicts WHERE verdicts.sweep = sweeps.id) THEN 'plain'
            ELSE 'unknown' END,
       CASE WHEN sweeps.question LIKE '%"sandbox":"nested"%' THEN 'nested'
            WHEN sweeps.question LIKE '%"sandbox":"forked"%' THEN 'forked'
            WHEN sweeps.question LIKE '%"sandbox":"forked_only"%' THEN 'forked_only'
            WHEN sweeps.question LIKE '%"sandbox":"host"%' THEN 'host'
            WHEN sweeps.question LIKE '%"sandbox":"process"%' THEN 'process'
            WHEN sweeps.question LIKE '%"sandbox":"auto"%' THEN 'auto'
            ELSE 'container' END,
       sweeps.revision, sweeps.created_at, sweeps.finished_at
FROM sweeps JOIN projects ON projects.name = sweeps.project;
