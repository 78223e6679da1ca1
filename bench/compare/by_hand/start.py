"""Starts a command and prints one JSON object: its `seconds`, its peak memory in KiB, and its exit status.

    start.py COMMAND...

A program inherits the peak memory of the program that started it. So a script that holds large arrays starts its commands through
this small program.
"""

import json
import os
import subprocess
import sys
import time

start = time.perf_counter()
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "kib": usage.ru_maxrss, "status": os.waitstatus_to_exitcode(status)}))
