-- A customer may share an account of the ERP with others, or use one that was typed in. There is no record for such a customer.

ALTER TABLE document
    ADD COLUMN account text;                -- the ERP's key of the account that a customer shares
CREATE INDEX document_account ON document (account) WHERE account IS NOT NULL;

CREATE TABLE account_claim (
    identity text PRIMARY KEY,              -- a hash of a customer's number, verified e-mail or tax id
    type text NOT NULL,
    key text NOT NULL
);
COMMENT ON TABLE account_claim IS 'New customers on their way to the ERP: who may be the same one waits for them';
