-- Counts of documents by state are asked for often, and nearly all of a million are done. So only open documents are
-- counted, by a partial index, and triggers keep the total.

CREATE INDEX document_open ON document (type, state) INCLUDE (seen, marked) WHERE state <> 'done' OR seen < marked;

CREATE TABLE document_total (
    type text PRIMARY KEY,
    documents bigint NOT NULL
);
COMMENT ON TABLE document_total IS 'Kept by triggers on document. Only the stager adds documents, so nobody waits for its rows';

CREATE FUNCTION count_documents() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(
        'INSERT INTO %1$I.document_total AS t SELECT type, %2$s count(*) FROM changed GROUP BY type ORDER BY type'
        ' ON CONFLICT (type) DO UPDATE SET documents = t.documents + excluded.documents',
        TG_TABLE_SCHEMA, CASE TG_OP WHEN 'DELETE' THEN '-' ELSE '' END);
    RETURN NULL;
END $$;
CREATE TRIGGER document_added AFTER INSERT ON document
    REFERENCING NEW TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_documents();
CREATE TRIGGER document_removed AFTER DELETE ON document
    REFERENCING OLD TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION count_documents();
INSERT INTO document_total SELECT type, count(*) FROM document GROUP BY type;
