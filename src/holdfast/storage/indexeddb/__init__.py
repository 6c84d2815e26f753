"""Storage "indexeddb": blocks of the origin, which one shared worker has in memory for all tabs.

storage.py   the connections of one database        hub.py      what the worker has of it, once
store.py     the database as a whole                blocks.py   its bytes as blocks, and back
"""
