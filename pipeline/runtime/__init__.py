"""The outside world: the only home of third-party clients on the message path."""
