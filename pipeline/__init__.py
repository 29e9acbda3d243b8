"""A Kafka-based message delivery pipeline that does not stop at "sent"."""

__version__ = "0.1.0"
