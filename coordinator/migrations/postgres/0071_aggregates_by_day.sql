-- As on SQLite: by day and then by test, in the order in which days are summed up.
ALTER TABLE aggregates DROP CONSTRAINT aggregates_pkey;
ALTER TABLE aggregates ADD PRIMARY KEY (span, start, test, class);
DROP INDEX aggregates_by_age;
