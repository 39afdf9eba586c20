"""Makes the ERP agree with the shop, whatever dies on the way."""
