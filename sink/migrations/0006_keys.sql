-- A document's key in the ERP is given once and kept; it no longer follows the document's name in the profile. Records
-- have parts by kind and links by key; until now they had lines and texts.

ALTER TABLE document
    ADD COLUMN external text,               -- the key that the ERP keeps; NULL before the first command
    ADD COLUMN reached text;                -- the milestone we took it to; NULL: an earlier release did

UPDATE document SET external =
    substr(current_schema, length('ordertap_') + 1) || '/' || type || '/' || key || '/' || incarnation
 WHERE applied IS NOT NULL OR intent IS NOT NULL OR revision > 0;
CREATE UNIQUE INDEX document_external ON document (external);

-- An account number belongs to a customer's key; until now guests had theirs by e-mail. Numbers in the ERP stay.
CREATE TEMPORARY TABLE numbered ON COMMIT DROP AS
    SELECT substr(current_schema, length('ordertap_') + 1) || '/' || key AS customer,
           applied #>> '{fields,number}' AS number
      FROM document WHERE applied ->> 'kind' = 'customer' AND applied #>> '{fields,number}' IS NOT NULL;
DELETE FROM account
 WHERE (customer, number) NOT IN (SELECT customer, number FROM numbered)
   AND (starts_with(customer, substr(current_schema, length('ordertap_') + 1) || '/guest/')
        OR customer IN (SELECT customer FROM numbered));
INSERT INTO account (customer, number) SELECT customer, number FROM numbered ORDER BY customer ON CONFLICT DO NOTHING;
COMMENT ON COLUMN account.customer IS 'The shop and the customer''s key';

CREATE TEMPORARY TABLE account_of ON COMMIT DROP AS
    SELECT DISTINCT ON (applied #>> '{fields,number}') applied #>> '{fields,number}' AS number, external
      FROM document WHERE applied ->> 'kind' = 'customer' ORDER BY 1, 2;
CREATE INDEX ON account_of (number);

CREATE FUNCTION pg_temp.link(kind text, external text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_build_object('r', jsonb_build_array(kind, external))
$$;
CREATE FUNCTION pg_temp.part(record jsonb, part text) RETURNS jsonb LANGUAGE sql AS $$
    SELECT coalesce(jsonb_object_agg(substr(key, length(part) + 2), value), '{}')
      FROM jsonb_each(record -> 'lines') WHERE starts_with(key, part || ':')
$$;
CREATE FUNCTION pg_temp.links(record jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE record ->> 'kind'
        WHEN 'order' THEN jsonb_build_object('account', pg_temp.link('customer', coalesce(
            (SELECT external FROM account_of WHERE number = record #>> '{fields,account}'),
            'hand:' || (record #>> '{fields,account}'))))
        WHEN 'return' THEN jsonb_build_object('order', pg_temp.link('order', record #>> '{fields,order}'))
        WHEN 'refund' THEN jsonb_build_object('order', pg_temp.link('order', record #>> '{fields,order}'))
        ELSE '{}' END
$$;
CREATE FUNCTION pg_temp.parts(record jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE record ->> 'kind'
        WHEN 'order' THEN jsonb_build_object('line', pg_temp.part(record, 'line'),
            'charge', pg_temp.part(record, 'charge'), 'discount', pg_temp.part(record, 'discount'))
        WHEN 'return' THEN jsonb_build_object('line', (SELECT coalesce(jsonb_object_agg(key, value || jsonb_build_object(
            'order_line', pg_temp.link('order', (record #>> '{fields,order}') || '/' || (value ->> 'order_line')))), '{}')
            FROM jsonb_each(record -> 'lines')))
        ELSE '{}' END
$$;
CREATE FUNCTION pg_temp.converted(record jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT CASE WHEN record ? 'lines' AND NOT record ? 'parts' THEN
        jsonb_build_object('kind', record -> 'kind', 'fields', (record -> 'fields') || pg_temp.links(record),
            'parts', pg_temp.parts(record))
        ELSE record END
$$;
UPDATE document SET applied = pg_temp.converted(applied),
    intent = CASE WHEN intent IS NOT NULL THEN
        intent || jsonb_build_object('record', pg_temp.converted(intent -> 'record')) END
 WHERE applied IS NOT NULL OR intent IS NOT NULL;

ALTER TABLE document DROP COLUMN desired;   -- it was the same as `applied`, and nothing read it
COMMENT ON COLUMN document.waits_for IS 'TYPE KEY of the document that this one waits for';
COMMENT ON COLUMN history.event IS
    'the verb that the ERP was given (create, amend, advance, reopen, cancel, remove), done by hand, held, or what a person accepted';
COMMENT ON COLUMN blocked.cause IS
    'parked:GENERATION:LSN, a commit of the shop: ends when none of its records is parked any more';

-- A parked record that may be part of any document holds all documents that read its table.
ALTER TABLE parked ADD COLUMN holds_table text;     -- NULL: it blocks the documents that its commit touches
CREATE INDEX parked_holds_table ON parked (holds_table) WHERE holds_table IS NOT NULL;
CREATE INDEX parked_key ON parked USING hash (key); -- a later record of the same key supersedes it
