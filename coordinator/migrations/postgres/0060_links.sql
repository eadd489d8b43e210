-- Renamed and moved tests are found by what they do, and each is the earlier one of one other. Days of which
-- reports came late are summed up again.

-- When a listing of all tests last had it. Null: none ever did.
ALTER TABLE tests ADD COLUMN listed_at BIGINT;
-- Who says so: 'found' by two listings, or 'said' by somebody.
ALTER TABLE test_links ADD COLUMN origin TEXT NOT NULL DEFAULT 'said';
CREATE UNIQUE INDEX links_of_earlier ON test_links (earlier) WHERE unlinked_at IS NULL;

-- When points of the day came last, if it was over by then.
ALTER TABLE aggregated_days ADD COLUMN late_at BIGINT;
