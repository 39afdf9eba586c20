"""The shop's PostgreSQL: connections, the log's messages, what the server may forget, the catalogue."""
