"""Storage "file": an ordinary file of CPython, which other processes may have open too.

storage.py     the connections of one database      channel.py   how processes hear of commits
store.py       the database as a whole              guard.py     keeps it from foreign closes
wal_index.py   what the -shm file says
"""
