"""What runs the rest: memory, tables, threads, devices, processes, progress.

memory.py        how much memory there is, and budgets
tables.py        tables that need not fit into memory
threads.py       one pool of threads
devices.py       which torch device to use
distributed.py   several processes that learn together
progress.py      progress bars, lines about finished steps, stage timings
arrays.py        small functions on arrays
keyed_random.py  random numbers by key
versions.py      installed packages, and which are newer than tested
"""
