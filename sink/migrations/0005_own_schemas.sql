-- Each shop has its own schema for this, named after it: whose the layer is needs no row any more.
DELETE FROM binding WHERE name = 'shop';
COMMENT ON TABLE binding IS 'A sink that is pointed at another ERP than before stops';
