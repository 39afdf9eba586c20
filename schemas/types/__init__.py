"""How each PostgreSQL type travels: its Avro type, and the way from its text to Avro bytes."""
