-- What a sweep has waiting and under way is counted whenever jobs are published.
-- The other dialect's file of the same number declares the same names.

CREATE INDEX jobs_pending_of_sweep ON jobs (sweep, created_at, ordinal, id) WHERE state = 'pending';
CREATE INDEX jobs_queued_of_sweep ON jobs (sweep) WHERE state = 'queued';
