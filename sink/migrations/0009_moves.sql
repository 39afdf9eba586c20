-- A document whose key the shop has changed stays the same document in the ERP. It is found by the change of key in the
-- log, or else, if the shop wrote the order anew, by number, date and buyer.

CREATE TABLE key_change (
    type text NOT NULL,                     -- the document's name in the profile
    key text NOT NULL,                      -- its key now
    old_key text NOT NULL,
    PRIMARY KEY (type, key)
);
COMMENT ON TABLE key_change IS 'Keys that the shop has changed, until their documents were looked at';

CREATE INDEX document_fingerprint ON document (fingerprint) WHERE fingerprint IS NOT NULL;
