"""Tails a PostgreSQL database's replication log and writes Avro change records to Kafka."""
