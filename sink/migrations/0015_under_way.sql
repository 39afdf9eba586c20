-- What is under way stays where it is, and is found by what it is.

ALTER TABLE document
    ADD COLUMN next_unit text;              -- where the shop has it now, while a step of it is under way; else NULL

-- An order that is written anew under another key while its create is under way: few are.
CREATE INDEX document_coming ON document ((intent ->> 'fingerprint'))
    WHERE applied IS NULL AND intent ->> 'fingerprint' IS NOT NULL;
