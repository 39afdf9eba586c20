-- A document whose key the shop has changed keeps what it is in the ERP. It is found by what the log says of its key, and
-- where that was not seen, or the shop wrote it anew, by its number, date and buyer.

CREATE TABLE key_change (
    type text NOT NULL,                     -- the document's name in the profile
    key text NOT NULL,                      -- its key now
    old_key text NOT NULL,
    PRIMARY KEY (type, key)
);
COMMENT ON TABLE key_change IS 'Keys that the shop has changed, until their documents were looked at';

CREATE INDEX document_fingerprint ON document (fingerprint) WHERE fingerprint IS NOT NULL;
