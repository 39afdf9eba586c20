-- The copy is the shop as of one commit, by the index of commits. What was staged another way is read again: the ledger,
-- its keys, accounts, decisions and history stay, and nothing is planned before the copy has come past them.

CREATE TABLE copy (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),       -- one row
    generation bigint NOT NULL,
    lsn numeric(20) NOT NULL,                               -- the copy is the shop as of (generation, lsn, ordinal)
    ordinal bigint NOT NULL,                                -- 2^62: with the commit at lsn; 0: with all before it
    state text NOT NULL CHECK (state IN ('catching up', 'copying', 'steady')),
    index_topic_id text NOT NULL,                           -- where the index of commits is read on
    index_offset bigint NOT NULL,
    serial bigint NOT NULL,                                 -- the last record of it that was taken, and where it ended
    end_generation bigint NOT NULL,
    end_lsn numeric(20) NOT NULL,
    committed_at timestamptz,                               -- when the shop made the last commit that is visible
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
    generation bigint NOT NULL,                             -- since where in the log the profile has it
    lsn numeric(20) NOT NULL
);

CREATE TABLE table_gap (
    table_name text NOT NULL,
    cause text NOT NULL CHECK (cause IN
        ('skipped', 'lost', 'parked by capture', 'begun without a copy', 'joined', 'short snapshot')),
    generation bigint NOT NULL,                             -- a snapshot of the table from here on fills it
    lsn numeric(20) NOT NULL,
    detail text NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (table_name, cause)
);
COMMENT ON TABLE table_gap IS 'Tables of which changes are missing: what is made of them is held';

ALTER TABLE snapshot ADD COLUMN first boolean NOT NULL DEFAULT false;

-- The ledger acted on rows up to here, whatever table they are of. Their names have a dot, or # where they were cut.
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

-- A row that comes late wakes the documents that lacked it: they are found by what they are, among all that are done.
CREATE INDEX document_lacking ON document (type, marked_at) WHERE state IN ('gone', 'held', 'not ready');
