"""Simulated providers: own processes with real HTTP, scripted faults and a ledger that an oracle
can trust because the pipeline never touches it."""
