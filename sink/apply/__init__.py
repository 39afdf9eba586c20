"""Makes the ERP agree with the shop, whichever process or connection dies on the way."""
