"""How long tests wait for what has to come."""

from __future__ import annotations

# In seconds. It tells a hang, and says nothing of how fast anything is: no machine is so slow.
PATIENCE = 60.0

# What must not be waited for lasts longer than that, so that waiting for it is found out.
LONGER = 10 * PATIENCE
