"""Embedded servers and the supervisor of `pipeline up`: real Kafka, the ClickHouse engine behind
its HTTP interface, and processes that never outlive the one that started them."""
