-- The history has each step with the copy's position, the command and the result.
ALTER TABLE history
    ADD COLUMN person text NOT NULL DEFAULT '',             -- who did it; '': the sink
    ADD COLUMN generation bigint,           -- the copy's position when the step was planned; NULL: an earlier release
    ADD COLUMN lsn numeric(20),
    ADD COLUMN command jsonb,               -- verb, kind, goal, money before and after, what changed
    ADD COLUMN reached text NOT NULL DEFAULT '';            -- the ERP's milestone afterwards
COMMENT ON COLUMN history.detail IS 'the ERP''s number of what was done, or why it was not';
COMMENT ON COLUMN history.event IS
    'the verb that the ERP was given (create, amend, advance, reopen, cancel, remove), done by hand, held, retry, moved (to another key), or what a person did';

-- For lists: a document's amount, and what `mode: plan` would send.
ALTER TABLE document
    ADD COLUMN gross numeric,               -- of the shop's version at the last look; of a price its amount
    ADD COLUMN currency text,
    ADD COLUMN planned jsonb;               -- the commands that would be sent; NULL: none
CREATE INDEX document_number ON document (number) WHERE number IS NOT NULL;
