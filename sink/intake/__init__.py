"""Kafka: what is read of it, where reading starts, and which offsets are staged."""
