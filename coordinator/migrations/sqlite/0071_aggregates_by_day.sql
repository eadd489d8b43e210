-- By day and then by test, in the order in which days are summed up: by test first, each night wrote to as many pages
-- as there are tests, and the larger the history the more of them. Deletion by age needs no index of its own any more.
CREATE TABLE aggregates_71 (
    test   INTEGER NOT NULL REFERENCES tests (number),
    -- 'hour' or 'day': what is summed up.
    span   TEXT NOT NULL,
    class  TEXT NOT NULL,
    -- The first day that the pack is of, counted from the epoch.
    start  INTEGER NOT NULL,
    points INTEGER NOT NULL,
    packed BLOB NOT NULL,
    PRIMARY KEY (span, start, test, class)
) STRICT, WITHOUT ROWID;
INSERT INTO aggregates_71 (test, span, class, start, points, packed)
SELECT test, span, class, start, points, packed FROM aggregates ORDER BY span, start, test, class;
DROP TABLE aggregates;
ALTER TABLE aggregates_71 RENAME TO aggregates;
