"""An ERP that is reached through its own database."""
