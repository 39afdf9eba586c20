-- Holds have a name, and what a person says of a document is kept with what it was said of.
ALTER TABLE document
    ADD COLUMN check_name text,             -- what a held document did not pass (planning/policy.py, Check)
    ADD COLUMN disputed jsonb,              -- of a held document: its version, and fields with both values
    ADD COLUMN decisions jsonb;             -- what a person accepted and released, with the values or version of it
COMMENT ON COLUMN document.fingerprint IS 'tells an identity that is used again; NULL: a person took it for the same';

ALTER TABLE document DROP CONSTRAINT document_state_check, ADD CONSTRAINT document_state_check CHECK (state IN (
    'due', 'settling', 'not ready', 'before start_at', 'waits', 'retry', 'held', 'planned', 'done', 'ignored', 'gone'));

-- A document that rested until the shop changes it again is asked for once more: `ignored` is for ever now.
WITH asked AS (
    UPDATE document SET state = 'due', next_try = clock_timestamp(), marked = marked + 1 WHERE state = 'ignored'
    RETURNING unit
)
UPDATE unit SET due_at = clock_timestamp() WHERE unit IN (SELECT unit FROM asked);
