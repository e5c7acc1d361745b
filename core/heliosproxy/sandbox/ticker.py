"""Advances an engine's epoch as the process uses processor time: what ends a guest that does not end by itself.

Processor time, not the time of day: a guest cannot wait for anything, so the two differ only where the machine is
busy with something else, and a process that was not scheduled for a while must not cost a plugin its deadline. An idle
proxy does not tick at all. Threads that run at the same time make it tick faster, by as many as there are processors.

On Linux a POSIX timer calls wasmtime_engine_increment_epoch on a thread of the C library's, which needs no GIL, so a
busy interpreter does not stretch deadlines. Elsewhere, or where the timer cannot be had, a Python thread does it.

Rejected: a timer per call (two system calls for every hook), fuel (slows tight loops by half), a signal handler
(the handler gets a signal number, not the engine).
"""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from ctypes import CDLL, POINTER, Structure, byref, c_int, c_long, c_void_p

from wasmtime import Engine

from heliosproxy.sandbox.frame import epoch_increment

_CLOCK_PROCESS_CPUTIME_ID = 2
_SIGEV_THREAD = 2


class _Sigevent(Structure):
    """`struct sigevent` of 64-bit Linux, 64 bytes long."""

    _fields_ = (
        ("value", c_void_p),
        ("signo", c_int),
        ("notify", c_int),
        ("function", c_void_p),
        ("attributes", c_void_p),
        ("padding", ctypes.c_char * 32),
    )


class _Itimerspec(Structure):
    _fields_ = (("interval_s", c_long), ("interval_ns", c_long), ("value_s", c_long), ("value_ns", c_long))


class Ticker:
    """Ticks every `interval` seconds of processor time, from `start` until `stop`.

    `kind` says how: `timer`, `thread` or `stopped`.
    """

    def __init__(self, engine: Engine, interval: float, *, timer: bool = True) -> None:
        self.kind = "stopped"
        self.interval = interval
        self._engine = engine
        self._want_timer = timer and sys.platform == "linux" and sys.maxsize > 2**32
        self._timer = c_void_p()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to tick."""
        if self._want_timer and self._start_timer():
            self.kind = "timer"
            return
        self._thread = threading.Thread(target=self._run, name="helios-epoch", daemon=True)
        self._thread.start()
        self.kind = "thread"

    def stop(self) -> None:
        """Stop ticking. A tick of the timer that has begun may still end after this; it does not need the engine."""
        if self.kind == "timer":
            _libc().timer_delete(self._timer)
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.kind = "stopped"

    def _run(self) -> None:
        ticked = time.process_time()
        while not self._stopping.wait(self.interval):
            while time.process_time() - ticked >= self.interval:
                self._engine.increment_epoch()
                ticked += self.interval

    def _start_timer(self) -> bool:
        """Start the POSIX timer. False where there is none."""
        libc = _libc()
        if not all(hasattr(libc, name) for name in ("timer_create", "timer_settime", "timer_delete")):
            return False
        function, engine = epoch_increment(self._engine)
        event = _Sigevent(value=engine, notify=_SIGEV_THREAD, function=function)
        if libc.timer_create(_CLOCK_PROCESS_CPUTIME_ID, byref(event), byref(self._timer)) != 0:
            return False
        nanoseconds = int(self.interval * 1e9)
        spec = _Itimerspec(0, nanoseconds, 0, nanoseconds)
        if libc.timer_settime(self._timer, 0, byref(spec), None) != 0:
            libc.timer_delete(self._timer)
            return False
        return True


def _libc() -> CDLL:
    libc = CDLL(None, use_errno=True)
    if hasattr(libc, "timer_create"):
        libc.timer_create.argtypes = [c_int, c_void_p, POINTER(c_void_p)]
        libc.timer_settime.argtypes = [c_void_p, c_int, c_void_p, c_void_p]
        libc.timer_delete.argtypes = [c_void_p]
    return libc
