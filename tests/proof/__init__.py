"""An independent witness: compares Kafka with the shop's log and tables.

It shares no code with capture, sink or schemas, so that a fault there is not repeated here: plain confluent-kafka,
fastavro and psycopg2, and the record format as schemas/README.md describes it.
"""
