-- Each shop has a schema of its own, named after it, so no row needs to say whose it is.
DELETE FROM binding WHERE name = 'shop';
COMMENT ON TABLE binding IS 'A sink that is pointed at another ERP than before stops';
