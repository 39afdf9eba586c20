"""An independent witness: what is in Kafka against what the shop's log and tables say.

It shares no code with capture, sink or schemas, so that a fault there is not a fault here too: plain confluent-kafka,
fastavro and psycopg2, and the record format as schemas/README.md states it.
"""
