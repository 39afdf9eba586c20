"""Reads change records from Kafka, and carries customers, orders, returns, refunds and prices into an ERP."""
