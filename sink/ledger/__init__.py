"""What the shop wants of the ERP against what the ERP was given, document by document."""
