"""Run a command that is asked to save and stop (SIGTERM) when its parent dies, also by `kill -9`.

    python leash.py PARENT_PID COMMAND ...

A file of its own rather than `preexec_fn`, which is unsafe in a process with threads. The parent is the thread that
starts this, so that thread has to outlive the command. SIGUSR2 is ignored: Slurm sends it to every process of a job
whose time is up, and the job's own process answers it.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
RESUMABLE = 75

if __name__ == "__main__":
    _, parent, *command = sys.argv
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it has died before it could be watched
        sys.exit(RESUMABLE)
    os.execv(command[0], command)
