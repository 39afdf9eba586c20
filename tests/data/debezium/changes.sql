-- What was done before Debezium's records came to be; an empty line is a commit.
INSERT INTO scalars VALUES (
    1, true, 32767, 2147483647, 9223372036854775807, 1.5, 0.1, 1234567890.12, 12345678901234567890.123456789,
    1234567890123456789012345678901234567890.0123456789, 12345, 12300, 1234.56, 'text äöü €𝄞', 'varchar', 'ab', 'name',
    'q', 'CiText', '\x00ff10', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a": 1,  "b":[1,2]}', '{"a": 1, "b": [1, 2]}',
    '<r><a>1</a></r>', 'happy', 5, 'dom', 12.30, 4294967295);
INSERT INTO scalars (id) SELECT generate_series(2, 5);

INSERT INTO times VALUES (
    1, '2024-02-29', '23:59:59.999999', '12:34:56', '12:34:56.789', '12:34:56.789123', '12:34:56.789123+02',
    '12:34:56.789-05', '2024-02-29 12:34:56.789123', '2024-02-29 12:34:56', '2024-02-29 12:34:56.789',
    '2024-02-29 12:34:56.789123', '2024-02-29 12:34:56.789123+02', '2024-02-29 12:34:56+00',
    '2024-02-29 12:34:56.789-08', '1 year 2 months 3 days 04:05:06.789', '3 days 04:05:06.789');

INSERT INTO ri_default VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3);

INSERT INTO toasted VALUES (1, 1, repeat('x', 9000), decode(repeat('ab', 9000), 'hex'),
    jsonb_build_object('k', repeat('j', 9000)), array_fill('e'::text, ARRAY[8000])), (2, 1, 'small', '\x01', '{}', '{s}');

UPDATE ri_default SET v = 'a2' WHERE id = 1;

DELETE FROM ri_default WHERE id = 2;

UPDATE ri_default SET id = 33 WHERE id = 3;

UPDATE toasted SET n = 2 WHERE id = 1;
UPDATE toasted SET n = 2 WHERE id = 2;

UPDATE toasted SET big = repeat('z', 9000) WHERE id = 1;

UPDATE toasted SET id = 11 WHERE id = 1;

DELETE FROM toasted WHERE id = 11;

TRUNCATE orders_m, lines_m;

SELECT pg_logical_emit_message(false, 'pfx', 'non transactional');

SELECT pg_logical_emit_message(true, 'pfx', 'transactional');

INSERT INTO orders_m VALUES (100, 1);
INSERT INTO scalars VALUES (6);
INSERT INTO lines_m VALUES (100, 1, 'sku');

INSERT INTO orders_m VALUES (1, 10.50);
INSERT INTO lines_m VALUES (1, 1, 'a'), (1, 2, 'b');
UPDATE orders_m SET total = 11 WHERE id = 1;
UPDATE orders_m SET total = 12 WHERE id = 1;
DELETE FROM lines_m WHERE order_id = 1 AND line = 2;

INSERT INTO orders_m VALUES (3, 1);
DELETE FROM orders_m WHERE id = 3;

UPDATE ri_default SET n = 5 WHERE id = 1;
UPDATE ri_default SET id = 50 WHERE id = 1;

INSERT INTO orders_m VALUES (999, 9.99);

INSERT INTO orders_m VALUES (1000, 0);
