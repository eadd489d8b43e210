-- How large what a project may read is, as far as it counts towards the project's quota.
-- The other dialect's file of the same number declares the same tables and names.

ALTER TABLE project_blobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
