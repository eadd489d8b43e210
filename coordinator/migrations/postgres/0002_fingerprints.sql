-- What each verdict was about: a digest of the test and of all it is known to touch. Runs count for a
-- later sweep as long as it stays the same. Null: nobody looked.

ALTER TABLE verdicts ADD COLUMN fingerprint TEXT;
CREATE INDEX sweeps_of_project ON sweeps (project, created_at);
