-- Holds have a check. A person's decision is kept with the values or the version that it is about.
ALTER TABLE document
    ADD COLUMN check_name text,             -- that a held document did not pass (planning/policy.py, Check)
    ADD COLUMN disputed jsonb,              -- its version when held, and differing fields with both values
    ADD COLUMN decisions jsonb;             -- see planning/decisions.py
COMMENT ON COLUMN document.fingerprint IS 'tells an identity that is used again; NULL: a person took it for the same';

ALTER TABLE document DROP CONSTRAINT document_state_check, ADD CONSTRAINT document_state_check CHECK (state IN (
    'due', 'settling', 'not ready', 'before start_at', 'waits', 'retry', 'held', 'planned', 'done', 'ignored', 'gone'));

-- `ignored` used to end with the next change in the shop; now it is for good. So these documents are due once more.
WITH asked AS (
    UPDATE document SET state = 'due', next_try = clock_timestamp(), marked = marked + 1 WHERE state = 'ignored'
    RETURNING unit
)
UPDATE unit SET due_at = clock_timestamp() WHERE unit IN (SELECT unit FROM asked);
