"""Before torch is imported: one thread a process, since several test processes share two cores."""

import os

# Threads beyond the cores wait for one another in a loop and make everything many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
