"""Kafka: topics, transactions, and the position that each of them carries."""
