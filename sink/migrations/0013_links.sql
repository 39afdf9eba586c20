-- `sink link` keeps in `decisions` which document of the ERP a person has named; each stands for one of the shop's.
CREATE UNIQUE INDEX document_linked ON document (type, (decisions ->> 'linked')) WHERE decisions ->> 'linked' <> '';
