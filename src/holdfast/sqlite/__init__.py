"""SQLite as this package uses it: connections, statements, values. Knows of no storage and no tab.

connection.py   a connection, and what it wrote        settings.py     what is set on it alone
statements.py   what a statement does                  interrupts.py   ending one that runs
parameters.py   what may be bound                      rows.py         what comes out
sqltext.py      SQL as text: names, literals, JSON
"""
