-- What the sink has read and staged. The staged tables are in the same schema, each named like the shop's table with its
-- schema (`public.orders`).

CREATE TABLE staged_table (
    table_name text PRIMARY KEY,            -- as in the shop: public.orders
    key_columns text[] NOT NULL,
    truncate_generation bigint,             -- stamp of the last TRUNCATE: older rows that come later count as deleted
    truncate_lsn numeric(20),
    truncate_ordinal bigint
);

CREATE TABLE evidence (
    topic text NOT NULL,
    topic_id text NOT NULL,                 -- a topic that is deleted and made again has a new id
    partition integer NOT NULL,
    next_offset bigint NOT NULL,            -- everything before it is staged, except open gaps
    staged_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, topic_id, partition)
);
COMMENT ON TABLE evidence IS 'Written with the rows: tells a replay (offset below) from a gap (committed above)';

CREATE TABLE gap (
    topic text NOT NULL,
    topic_id text NOT NULL,
    partition integer NOT NULL,
    from_offset bigint NOT NULL,
    until_offset bigint NOT NULL CHECK (until_offset > from_offset),
    cause text NOT NULL CHECK (cause IN ('skipped', 'parked')),
    found_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, topic_id, partition, from_offset)
);
COMMENT ON TABLE gap IS 'Offsets that are not staged although later ones are; a replay shrinks and closes them';

CREATE TABLE inbox (
    transaction_id text NOT NULL,
    table_name text NOT NULL,
    ordinal bigint NOT NULL,
    half smallint NOT NULL,                 -- 0: a whole change; 1, 2: old and new half of a key change
    generation bigint NOT NULL,
    commit_lsn numeric(20) NOT NULL,
    op text NOT NULL,
    row jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (transaction_id, table_name, ordinal, half)
);
COMMENT ON TABLE inbox IS 'Changes of shop commits that are not here as a whole yet';

CREATE TABLE transaction_size (
    transaction_id text PRIMARY KEY,
    size jsonb NOT NULL,                    -- changes per table
    received_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE transaction_size IS 'Counts of the shop commits in the inbox, from a header or from their END';

CREATE TABLE parked (
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    transaction_id text,                    -- NULL if its headers cannot be read either
    reason text NOT NULL,
    key bytea,
    value bytea,
    headers jsonb NOT NULL,                 -- [name, hex] pairs
    parked_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, "offset")
);
COMMENT ON TABLE parked IS 'Records that could not be read; nothing is dropped silently';

CREATE TABLE blocked (
    type text NOT NULL,
    key text NOT NULL,
    cause text NOT NULL,                    -- transaction:<id>, unseen:<table>:<key>, gap:<id>; ends with it
    reason text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (type, key, cause)
);
CREATE INDEX blocked_cause ON blocked (cause);
COMMENT ON TABLE blocked IS 'Documents that must be held, because not all that they are made of is known';

CREATE TABLE snapshot (
    id text PRIMARY KEY,
    generation bigint NOT NULL,
    lsn numeric(20) NOT NULL,
    tables text[] NOT NULL,
    rows jsonb,
    state text NOT NULL CHECK (state IN ('running', 'announced', 'complete')),
    began_at timestamptz NOT NULL DEFAULT now(),
    accepted_by text                        -- the person who declared it complete although rows are missing
);
COMMENT ON COLUMN snapshot.state IS 'announced: capture said it is complete, but not all of its rows are here yet';
