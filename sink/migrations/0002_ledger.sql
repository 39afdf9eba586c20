-- The ledger: for each document, what the shop wants in the ERP (desired) and what the ERP was given (applied).
-- One ledger serves one shop and one ERP; `binding` names the ERP.

CREATE TABLE unit (
    unit text PRIMARY KEY,                  -- an order with its returns and refunds, a customer, or a price
    due_at timestamptz,                     -- when to look at it; NULL: nothing to do
    owner text,                             -- the worker that has the lease
    epoch bigint NOT NULL DEFAULT 0,        -- counts leases: a worker that lost its lease cannot write
    deadline timestamptz                    -- until then only the owner may call the ERP for it
);
CREATE INDEX unit_due ON unit (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE document (
    type text NOT NULL,                     -- the document's name in the profile
    key text NOT NULL,                      -- the shop's key
    unit text NOT NULL,
    marked bigint NOT NULL DEFAULT 1,       -- raised by every shop commit that touches it
    marked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen bigint NOT NULL DEFAULT 0,         -- the mark of the last look; dirty while less than `marked`
    state text NOT NULL DEFAULT 'due'
        CHECK (state IN ('due', 'settling', 'not ready', 'waits', 'retry', 'held', 'planned', 'done', 'ignored', 'gone')),
    needed boolean NOT NULL DEFAULT false,  -- a customer is sent once a document needs it
    fingerprint text,                       -- number, date, buyer: shows that a key is used again
    number text,                            -- the shop's number, for people
    incarnation integer NOT NULL DEFAULT 1, -- part of the ERP's key
    revision bigint NOT NULL DEFAULT 0,     -- counts steps; the ERP refuses an older one
    intent jsonb,                           -- the step in doubt, written before the ERP is called
    desired jsonb,                          -- the ERP record that the shop wants
    applied jsonb,                          -- the record written last
    reference text,                         -- the ERP's own number
    applied_at timestamptz,
    cause text CHECK (cause IN ('data', 'master data', 'decision', 'waits')),
    reason text,
    next_step text,
    waits_for text,                         -- 'type key' of the document, or 'item SKU'
    attempts integer NOT NULL DEFAULT 0,
    next_try timestamptz,
    held_since timestamptz,
    PRIMARY KEY (type, key)
);
CREATE INDEX document_unit ON document (unit);
CREATE INDEX document_waits_for ON document (waits_for) WHERE waits_for IS NOT NULL;
CREATE INDEX document_state ON document (state) WHERE state NOT IN ('done', 'gone');

CREATE TABLE account (
    customer text PRIMARY KEY,              -- shop and buyer; guests: shop and normalised e-mail
    number text NOT NULL UNIQUE,            -- of the account in the ERP
    made_at timestamptz NOT NULL DEFAULT now()
);
CREATE SEQUENCE account_number START 100001;

CREATE TABLE history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    type text NOT NULL,
    key text NOT NULL,
    event text NOT NULL,                    -- create, amend, cancel, remove, held, retry
    detail text NOT NULL DEFAULT ''
);
CREATE INDEX history_document ON history (type, key);

CREATE TABLE binding (
    name text PRIMARY KEY,                  -- shop, erp
    value text NOT NULL,
    bound_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE binding IS 'A sink that is pointed at another ERP or shop than before stops';
