"""Storage "opfs": files of the origin, shared by the workers of all its tabs.

storage.py    the connections of one database       node.py       what a worker has of it, once
store.py      the database as a whole               presence.py   who else has it open
leases.py     what a tab may do, and when           wal.py        when the WAL is emptied
requests.py   one lock that is asked for            wishes.py     what tabs do for each other
"""
