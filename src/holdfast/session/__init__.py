"""One open database: its transactions, and who hears of them.

transactions.py    an open transaction                 writing.py   one that writes, from its
reading.py         connections that read beside it                  lease to its announcement
announcements.py   who hears of a commit
"""
