-- A document with an intent stays in its unit, and is found by its fingerprint.

ALTER TABLE document
    ADD COLUMN next_unit text;              -- its unit by the shop, while it has an intent; else NULL

-- For orders that the shop writes anew under another key while their create is in doubt. Few rows.
CREATE INDEX document_coming ON document ((intent ->> 'fingerprint'))
    WHERE applied IS NULL AND intent ->> 'fingerprint' IS NOT NULL;
