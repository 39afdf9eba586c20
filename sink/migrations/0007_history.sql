-- Who it was, where a person did it.
ALTER TABLE history ADD COLUMN person text NOT NULL DEFAULT '';
