-- `document_open` finds open documents, and each change of a document updates it anyway.
DROP INDEX document_state;
