"""Imported by Python when it starts, in the processes of the launched recipes: they end once gloo's threads are idle.

A gloo thread that lets go of its last tensor takes Python's lock; torch aborts a process whose interpreter is ending
then ("terminate called without an active exception"), also after `destroy_process_group()`. NCCL has no such thread.
"""

import atexit
import time

atexit.register(time.sleep, 0.5)
