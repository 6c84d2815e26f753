"""`Database`, on a connection of this interpreter. Its counterpart elsewhere is in remote/."""
