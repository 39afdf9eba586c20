-- `sink link` keeps in `decisions` which document of the ERP a person has named. Each may be linked once.
CREATE UNIQUE INDEX document_linked ON document (type, (decisions ->> 'linked')) WHERE decisions ->> 'linked' <> '';
