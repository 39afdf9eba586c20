-- One table for each thing that a sink of Debezium's may stumble over, and rows for the first copy.

CREATE TYPE mood AS ENUM ('sad', 'ok');

CREATE TABLE lists (
    id    int PRIMARY KEY,
    tags  text[] NOT NULL DEFAULT '{}',
    sizes int[] DEFAULT '{1,2}',
    moods mood[],
    flags boolean[],
    names uuid[],
    docs  jsonb[],
    parts double precision[]
);
INSERT INTO lists (id) VALUES (1);
INSERT INTO lists VALUES (2, '{a,NULL,"b,c"}', '{}', '{ok,sad}'), (3, '{x}', NULL, NULL);
UPDATE lists SET flags = '{t,NULL}', names = '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}',
    docs = ARRAY['{"a": [1]}'::jsonb], parts = '{0.1,NULL,-Infinity}' WHERE id = 2;

CREATE TABLE numbers (
    id     numeric(6,1) PRIMARY KEY,
    fixed  numeric(12,2),
    free   numeric,
    small  smallint,
    big    bigint,
    single real,
    double double precision
);
INSERT INTO numbers VALUES
    (1, 12.30, 0.000000001, -32768, 9223372036854775807, 0.1, 0.1), (2.5, -0.01, 1e30, 0, 0, 'NaN', '-Infinity'),
    (3, 'NaN', 'Infinity', NULL, NULL, NULL, NULL);

CREATE TABLE times (
    at     timestamptz PRIMARY KEY,
    short  timestamptz(0),
    local  timestamp,
    milli  timestamp(3),
    day    date,
    clock  time,
    zoned  timetz
);
INSERT INTO times VALUES
    ('2026-11-30 10:34:56.12+01', '2026-11-30 10:34:56Z', '2026-11-30 10:34:56.123456', '2026-11-30 10:34:56.789',
     '2026-11-30', '23:59:59.999999', '12:00:00.5+00'),
    ('1969-12-31 23:59:59.5+00', NULL, '0044-03-15 00:00:00', '1969-12-31 23:59:59.999', '1582-10-04', '00:00:00', NULL),
    ('10000-01-01 00:00:00+00', NULL, '10000-01-01 00:00:00', NULL, '10000-01-01', NULL, NULL);

CREATE TABLE kinds (
    id      int PRIMARY KEY,
    feeling mood NOT NULL DEFAULT 'ok',
    raw     bytea,
    name    uuid,
    plain   json,
    binary_ jsonb DEFAULT '{}',
    flag    boolean DEFAULT true,
    code    char(4),
    word    varchar(10),
    host    inet,
    span    int4range,
    cash    money,
    card    macaddr,
    words   tsvector,
    area    box
);
INSERT INTO kinds VALUES
    (1, 'sad', '\x00ff', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": [1, null]}', '{"b": "\"ü"}',
     false, 'DE', 'w', '10.0.0.1', '[1,5)', '-12.34', '08:00:2b:01:02:03', 'a b', '(1,1),(0,0)');
INSERT INTO kinds VALUES (2, 'ok', NULL, NULL, NULL, NULL, NULL);

CREATE TABLE nulls (  -- a NULL where the column has a default
    id    int PRIMARY KEY,
    state text DEFAULT 'new',
    n     int DEFAULT 7,
    at    timestamptz DEFAULT now(),
    price numeric(8,2) DEFAULT 1.50
);
INSERT INTO nulls (id) VALUES (1);
INSERT INTO nulls VALUES (2, NULL, NULL, NULL, NULL);

CREATE TABLE defaults (
    id     int PRIMARY KEY,
    fixed  numeric(8,2) NOT NULL DEFAULT 1.5,
    free   numeric NOT NULL DEFAULT 2.5,
    day    date NOT NULL DEFAULT '2026-01-01',
    local  timestamp NOT NULL DEFAULT '2026-01-01 10:00',
    at     timestamptz NOT NULL DEFAULT '2026-01-01 10:00Z',
    name   uuid NOT NULL DEFAULT gen_random_uuid(),
    raw    bytea NOT NULL DEFAULT '\x0102',
    flag   boolean NOT NULL DEFAULT true,
    doc    jsonb NOT NULL DEFAULT '{"a": 1}',
    code   char(3) NOT NULL DEFAULT 'a',
    part   double precision NOT NULL DEFAULT 0.5,
    host   inet NOT NULL DEFAULT '10.0.0.1',
    word   text NOT NULL DEFAULT 'o''x',
    small  smallint NOT NULL DEFAULT 3,
    big    bigint NOT NULL DEFAULT 4,
    span   int4range NOT NULL DEFAULT '[1,2)'
);
INSERT INTO defaults (id) VALUES (1), (2);

CREATE TABLE by_index (code text NOT NULL UNIQUE, n int);  -- and no primary key
ALTER TABLE by_index REPLICA IDENTITY FULL;
INSERT INTO by_index VALUES ('a', 1), ('b', 2), ('c', 3);

CREATE TABLE keys (code text, number int, n int, PRIMARY KEY (code, number));
INSERT INTO keys VALUES ('plain', 1, 1), (E'a"b\\c{d:[e,\n€', 2, 2), ('', 3, 3), ('gone', 4, 4), ('{"x": [1', 5, 5);

CREATE TABLE long (id int PRIMARY KEY, body text, n int);
ALTER TABLE long ALTER COLUMN body SET STORAGE EXTERNAL;
INSERT INTO long SELECT n, repeat('x' || n, 5000), 0 FROM generate_series(1, 3) n;

CREATE TABLE long_full (LIKE long INCLUDING ALL);
ALTER TABLE long_full REPLICA IDENTITY FULL;
INSERT INTO long_full TABLE long;

CREATE TABLE wider (id int PRIMARY KEY, name text NOT NULL);
INSERT INTO wider SELECT n, 'old' FROM generate_series(1, 3) n;

CREATE TABLE emptied (id int PRIMARY KEY, name text);
INSERT INTO emptied VALUES (1, 'gone'), (2, 'gone');

CREATE TABLE "Mixed Case" ("Id" int PRIMARY KEY, "Order" text, user_ text);
INSERT INTO "Mixed Case" VALUES (1, 'x', 'y');
