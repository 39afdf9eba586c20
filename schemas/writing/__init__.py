"""Rows to records: Avro schemas, codecs, JSON."""
