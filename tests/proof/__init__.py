"""An independent witness: compares Kafka with the shop's log and tables.

It shares no code with capture, sink or schemas, so it cannot repeat their faults. It uses plain confluent-kafka,
fastavro and psycopg2, and the record format that schemas/README.md describes.
"""
