-- The tables of which Debezium's records are; citext is made before, with the extension or without.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN dom_int AS int;
CREATE DOMAIN dom_text AS text;
CREATE DOMAIN dom_num AS numeric(10,2);
CREATE TABLE scalars (
    id int PRIMARY KEY, f_bool bool, f_int2 int2, f_int4 int4, f_int8 int8, f_real real, f_float8 float8,
    f_num numeric(12,2), f_num_u numeric, f_num_50 numeric(50,10), f_num_0 numeric(5,0), f_num_neg numeric(5,-2),
    f_money money, f_text text, f_varchar varchar(20), f_char char(6), f_name name, f_qchar "char", f_citext citext,
    f_bytea bytea, f_uuid uuid, f_json json, f_jsonb jsonb, f_xml xml, f_enum mood, f_dom_int dom_int,
    f_dom_text dom_text, f_dom_num dom_num, f_oid oid);
CREATE TABLE times (
    id int PRIMARY KEY, f_date date, f_time time, f_time0 time(0), f_time3 time(3), f_time6 time(6), f_timetz timetz,
    f_timetz3 timetz(3), f_ts timestamp, f_ts0 timestamp(0), f_ts3 timestamp(3), f_ts6 timestamp(6),
    f_tstz timestamptz, f_tstz0 timestamptz(0), f_tstz3 timestamptz(3), f_interval interval,
    f_interval_d interval day to second);
CREATE TABLE ri_default (id int PRIMARY KEY, v text, n int);
CREATE TABLE toasted (id int PRIMARY KEY, n int, big text, bigb bytea, bigj jsonb, biga text[]);
ALTER TABLE toasted ALTER big SET STORAGE EXTERNAL, ALTER bigb SET STORAGE EXTERNAL,
    ALTER bigj SET STORAGE EXTERNAL, ALTER biga SET STORAGE EXTERNAL;
CREATE TABLE orders_m (id int PRIMARY KEY, total numeric(10,2));
CREATE TABLE lines_m (order_id int, line int, sku text, PRIMARY KEY (order_id, line));
CREATE PUBLICATION tap FOR TABLE scalars, times, ri_default, toasted, orders_m, lines_m;
