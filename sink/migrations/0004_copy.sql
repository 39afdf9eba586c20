-- The copy is the shop as of one commit, by the index of commits. Rows that were staged without it are read again. The
-- ledger, its keys, accounts, decisions and history stay, and nothing is planned until the copy is past them.

CREATE TABLE copy (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),       -- one row
    generation bigint NOT NULL,
    lsn numeric(20) NOT NULL,                               -- the copy is the shop as of (generation, lsn, ordinal)
    ordinal bigint NOT NULL,                                -- 2^62: the commit at lsn included; 0: up to before it
    state text NOT NULL CHECK (state IN ('catching up', 'copying', 'steady')),
    index_topic_id text NOT NULL,                           -- where the index of commits is read on
    index_offset bigint NOT NULL,
    serial bigint NOT NULL,                                 -- number and end of its record taken last
    end_generation bigint NOT NULL,
    end_lsn numeric(20) NOT NULL,
    committed_at timestamptz,                               -- time of the last visible commit in the shop
    reached_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    waits_for text NOT NULL DEFAULT ''
);

CREATE TABLE acted (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    generation bigint NOT NULL,
    lsn numeric(20) NOT NULL
);
COMMENT ON TABLE acted IS 'The latest place of the copy that the ledger acted on: it never acts on an earlier one';

CREATE TABLE followed (
    table_name text PRIMARY KEY,
    generation bigint NOT NULL,                             -- the position from which the profile reads it
    lsn numeric(20) NOT NULL
);

CREATE TABLE table_gap (
    table_name text NOT NULL,
    cause text NOT NULL CHECK (cause IN
        ('skipped', 'lost', 'parked by capture', 'begun without a copy', 'joined', 'short snapshot')),
    generation bigint NOT NULL,                             -- a snapshot of the table from this position on fills it
    lsn numeric(20) NOT NULL,
    detail text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, cause)
);
COMMENT ON TABLE table_gap IS 'Tables of which changes are missing: what is made of them is held';

ALTER TABLE snapshot ADD COLUMN first boolean NOT NULL DEFAULT false;

-- The ledger has acted on rows up to the latest position in any staged table. Their names have a dot, or # if cut.
DO $$
DECLARE
    staged_name text;
    reached record;
BEGIN
    FOR staged_name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema AND tablename ~ '[.#]' LOOP
        EXECUTE format('SELECT _generation AS generation, _commit_lsn AS lsn FROM %I'
                       ' ORDER BY 1 DESC, 2 DESC LIMIT 1', staged_name) INTO reached;
        IF reached.generation IS NOT NULL THEN
            INSERT INTO acted AS a VALUES (true, reached.generation, reached.lsn) ON CONFLICT (one)
            DO UPDATE SET generation = excluded.generation, lsn = excluded.lsn
            WHERE (a.generation, a.lsn) < (excluded.generation, excluded.lsn);
        END IF;
        EXECUTE format('DROP TABLE %I CASCADE', staged_name);
    END LOOP;
END $$;

TRUNCATE staged_table, staged_column, evidence, gap, parked, blocked, snapshot;
DROP TABLE inbox, transaction_size;
ALTER TABLE parked DROP COLUMN transaction_id;

-- A row that comes late marks the documents that lacked it. This index finds them among many that are done.
CREATE INDEX document_lacking ON document (type, marked_at) WHERE state IN ('gone', 'held', 'not ready');
