-- Staged tables that follow the shop's schema.

-- A change of a staged table locks it exclusively. A reader locks it before its snapshot is taken (LOCK TABLE takes none),
-- because a rewritten table looks empty to an older snapshot.
CREATE TABLE schema_gate ();

ALTER TABLE staged_table
    ADD COLUMN version integer NOT NULL DEFAULT 1,          -- counts changes after which older rows lack values
    ADD COLUMN schema_generation bigint,                    -- stamp of a record with the newest schema
    ADD COLUMN schema_lsn numeric(20),
    ADD COLUMN schema_ordinal bigint,
    ADD COLUMN shown text;                                  -- the query of the view

CREATE TABLE staged_column (
    table_name text NOT NULL REFERENCES staged_table ON DELETE CASCADE,
    column_name text NOT NULL,
    position integer NOT NULL,
    type text NOT NULL,
    since_version integer NOT NULL,                         -- in rows of an older version it is unseen
    gone boolean NOT NULL DEFAULT false,                    -- the shop's table no longer has it
    PRIMARY KEY (table_name, column_name)
);

-- Raise an error if a document would read a value that never came. VOLATILE, so that they do not run while a query is
-- planned; COST is high, so that every other condition on the row is checked first. A query that only lists rows sets
-- ordertap.unseen to 'show'.
CREATE FUNCTION unseen(table_name text, columns text[], reads text[] DEFAULT NULL) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL SAFE COST 1000 AS $$
BEGIN
    IF current_setting('ordertap.unseen', true) = 'show' THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'OT001',
        MESSAGE = (SELECT string_agg(format('%s.%s', table_name, name), ', ' ORDER BY name)
                   FROM unnest(columns) AS name WHERE reads IS NULL OR name = ANY (reads)) || ' was never seen',
        HINT = format('`capture signal snapshot %s`', table_name);
END $$;

CREATE FUNCTION gone(table_name text, columns text[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL SAFE COST 1000 AS $$
BEGIN
    IF current_setting('ordertap.unseen', true) = 'show' THEN
        RETURN true;
    END IF;
    RAISE EXCEPTION USING
        ERRCODE = 'OT001',
        MESSAGE = (SELECT string_agg(format('%s.%s', table_name, name), ', ' ORDER BY name)
                   FROM unnest(columns) AS name) || ' is no longer in the shop',
        HINT = 'change the profile, which reads it';
END $$;
