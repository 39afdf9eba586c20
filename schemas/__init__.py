"""The vocabulary that capture and sink share: log positions, changes, Avro records, and nothing that does business."""
