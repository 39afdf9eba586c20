-- The history tells what was done, on what the shop was then, and what came of it.
ALTER TABLE history
    ADD COLUMN person text NOT NULL DEFAULT '',             -- who did it; '': the sink
    ADD COLUMN generation bigint,           -- the copy stood here when the step was planned; NULL: an earlier release
    ADD COLUMN lsn numeric(20),
    ADD COLUMN command jsonb,               -- verb, kind, goal, money before and after, what changed
    ADD COLUMN reached text NOT NULL DEFAULT '';            -- the milestone that the ERP came to
COMMENT ON COLUMN history.detail IS 'the ERP''s number of what was done, or why it was not';
COMMENT ON COLUMN history.event IS
    'the verb that the ERP was given (create, amend, advance, reopen, cancel, remove), done by hand, held, retry, moved (to another key), or what a person did';

-- For lists: what a document comes to, and what mode plan would send.
ALTER TABLE document
    ADD COLUMN gross numeric,               -- of what the shop had when it was looked at last; a price: its amount
    ADD COLUMN currency text,
    ADD COLUMN planned jsonb;               -- the commands that would be sent; NULL: none
CREATE INDEX document_number ON document (number) WHERE number IS NOT NULL;
