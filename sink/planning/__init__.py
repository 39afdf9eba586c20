"""What to do in the ERP. Pure."""
