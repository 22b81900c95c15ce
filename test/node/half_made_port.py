# SPDX-License-Identifier: Apache-2.0
"""Leaves a half-made port behind and starts a node beside it; run where /dev/shm is private."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vla_rl_ros.tools.shared_memory import SHM, mapped_segments

NODE = """
import signal, sys
from vla_rl_ros.ros.observer import GraphObserver
with GraphObserver():
    print("up", flush=True)
    if len(sys.argv) > 1:
        signal.pause()
"""


def main() -> None:
    """Kill a node, take back the words that make its ports whole, start another node."""
    command = [sys.executable, "-c", NODE]
    first = subprocess.Popen([*command, "stay"], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"up\n"
    ports = [SHM / name for name in mapped_segments([first.pid]) if "_port" in name]
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert ports
    for port in ports:
        _unmake(port)
    subprocess.run(command, timeout=30.0, check=True)


def _unmake(port: Path) -> None:
    port.with_name(f"{port.name}_el").unlink(missing_ok=True)
    with port.open("r+b") as file:
        file.write(bytes(4))
    long_ago_s = time.time() - 60.0
    os.utime(port, (long_ago_s, long_ago_s))


if __name__ == "__main__":
    main()
