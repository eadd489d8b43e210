-- Which deliveries of the latest publication a worker has had in hand: bit n is the one that had come back n times.
ALTER TABLE jobs ADD COLUMN taken BIGINT NOT NULL DEFAULT 0;
