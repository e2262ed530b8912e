"""Memory across restarts, in one SQLite file with one connection and one writer thread.

WAL with synchronous FULL and group commit: whatever was asked for while the last commit ran goes
into the next one.  Why one connection: SQLite before 3.51.3 can corrupt a WAL database that two
connections checkpoint at once (docs/adr/0005).
"""
