-- What is not done is found by `document_open` alone, in which each change of a document is written anyway.
DROP INDEX document_state;
