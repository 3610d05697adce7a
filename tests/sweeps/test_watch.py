"""Who waits for a cluster ends soon after it died, and after Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from cifake.exits import INTERRUPTED, STOPPED, UNFINISHED
from sweeps import watch
from sweeps.watch import LostClusterError, Watch

pytestmark = pytest.mark.heavy

DEAF = """
import ctypes, os, pathlib, threading, time
from sweeps import watch
watch._EVERY, watch._PATIENCE = 0.02, 0.2
library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(256)

def tell():
    call = pathlib.Path(f"/proc/self/task/{os.getpid()}/syscall")
    while hex(ctypes.addressof(mutex)) not in call.read_text().split():
        time.sleep(0.01)
    print("waiting", flush=True)

def wait_in_a_library():
    threading.Thread(target=tell, daemon=True).start()
    while True:  # the second time for ever, and no signal ends it
        library.pthread_mutex_lock(mutex)

"""


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "_EVERY", 0.02)


def test_a_block_ends_soon_after_its_cluster() -> None:
    begun = time.monotonic()

    def wait() -> None:
        with Watch() as watching, watching.cluster(lambda: time.monotonic() < begun + 0.2):
            time.sleep(30)

    with pytest.raises(LostClusterError, match="the same command goes on"):
        wait()
    assert time.monotonic() - begun < 10


def test_a_block_whose_cluster_lives_ends_as_it_would() -> None:
    with Watch() as watching, watching.cluster(lambda: True):
        time.sleep(0.1)

    def interrupted() -> None:
        with Watch() as watching, watching.cluster(lambda: True):
            signal.raise_signal(signal.SIGINT)
            time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    time.sleep(0.1)


def test_signals_are_heard_by_others_again_after_the_block() -> None:
    with Watch():
        assert signal.set_wakeup_fd(-1) >= 0
    assert signal.set_wakeup_fd(-1) == -1


def test_a_block_that_does_not_hear_that_its_cluster_died_ends_with_its_process() -> None:
    script = f"{DEAF}\nwith watch.Watch() as w, w.cluster(lambda: False): wait_in_a_library()"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == UNFINISHED
    assert ended.stdout.splitlines() == ["waiting", str(LostClusterError())]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_block_that_does_not_hear_ctrl_c_ends_with_its_process(number: signal.Signals) -> None:
    handle = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)"
    script = f"{DEAF}\n{handle}\nwith watch.Watch(): wait_in_a_library()"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert (process.returncode, said) == (INTERRUPTED, f"{STOPPED}\n")
