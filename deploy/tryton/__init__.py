"""A real Tryton for the demo and the tests. Its environment and data are made once and kept; its server is a part."""
