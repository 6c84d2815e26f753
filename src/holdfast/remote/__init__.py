"""A database that lives elsewhere: in the worker of a page, in a worker that tabs share.

The side that has the database serves it (server.py), the other shows it with the same classes and
methods (client.py). Between them is a port (port.py), which carries plain values.

    port.py     what a port is
    wire.py     rows, records and errors as plain values, and back
    peer.py     calls in both directions, their answers, their cancellation
    server.py   what can be called                       client.py    Database and Transaction
    served.py   the objects of one database there        triggers.py  trackers, and their handlers
    engine.py   which database of this page or process lives elsewhere

To serve a port: `Server(port)`. To use one: `client = await connect(port)`, then
`await client.open(name, …)`. Who serves several ports has a server for each; `server.close()` is
for when its client is gone.
"""
