"""How each type of PostgreSQL travels: its Avro type, and its text to Avro bytes."""
