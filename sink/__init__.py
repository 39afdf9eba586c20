"""Reads change records from Kafka and keeps an ERP's customers, orders, returns and prices in step."""
