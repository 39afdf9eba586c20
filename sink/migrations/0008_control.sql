-- What stops and starts applying as a whole: pause, go-live, the brake.

CREATE TABLE control (
    name text PRIMARY KEY CHECK (name IN ('pause', 'live')),
    person text NOT NULL,
    reason text NOT NULL DEFAULT '',
    since timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE control IS
    'What a person has said: a row `pause` while nothing may be sent, a row `live` once a shop in mode plan may send';

CREATE TABLE brake (
    kind text PRIMARY KEY,                  -- its row is locked while changes of the kind are counted
    stopped_at timestamptz,                 -- NULL: changes pass, and are counted
    reason text NOT NULL DEFAULT '',
    counts_since timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO brake (kind) VALUES ('orders'), ('prices');
COMMENT ON TABLE brake IS 'Mass changes: once there were too many, those that follow wait until a person releases them';

CREATE TABLE brake_count (
    kind text NOT NULL REFERENCES brake,
    type text NOT NULL,
    key text NOT NULL,
    at timestamptz NOT NULL,                -- when the change's last intent was written
    PRIMARY KEY (kind, type, key)
);
COMMENT ON TABLE brake_count IS 'The documents whose changes were let through within the window';

CREATE TABLE braked (
    type text NOT NULL,
    key text NOT NULL,
    kind text NOT NULL REFERENCES brake,
    seen bigint NOT NULL,                   -- the mark at which the brake stopped it; void after another look
    verb text NOT NULL,
    record jsonb NOT NULL,                  -- the ERP record that would have been sent
    PRIMARY KEY (type, key)
);
COMMENT ON TABLE braked IS 'The documents that the brake holds back';

-- The time of a mark up to which a person has let the document's changes pass: they are not counted.
ALTER TABLE document ADD COLUMN passed_at timestamptz;
-- The version of profile and models that built what the ERP has; NULL: an earlier release.
ALTER TABLE document ADD COLUMN made_by text;
CREATE INDEX document_made_by ON document (made_by) WHERE made_by IS NOT NULL;
