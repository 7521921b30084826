"""Becomes another program that ends when the one who started it ends.

Run as a script of its own (`python -I -S local/parent_death.py …`), so that nothing has to happen between
fork and exec in a process with threads. On Linux the kernel sends the given signal when the starter
is gone, even by SIGKILL (prctl(2), PR_SET_PDEATHSIG); elsewhere the starter's own care has to do.
The order matters: the kernel forgets the wish whenever a process changes its user.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def become(arguments: list[str]) -> None:
    """Take `PARENT SIGNAL UID GID PROGRAM …` (uid and gid may be `-`) and never return."""
    parent, death_signal, uid, gid, *command = arguments
    if uid != "-":
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):  # the parent died before prctl
        os.kill(os.getpid(), signal.SIGKILL)
    os.execvp(command[0], command)  # noqa: S606  no shell is what we want


if __name__ == "__main__":
    become(sys.argv[1:])
