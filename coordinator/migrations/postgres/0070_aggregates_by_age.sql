-- As on SQLite: only deletion by age uses it.
DROP INDEX aggregates_by_age;
CREATE INDEX aggregates_by_age ON aggregates (span, (start + 0));
