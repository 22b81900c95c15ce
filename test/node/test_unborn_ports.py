# SPDX-License-Identifier: Apache-2.0
"""A port that a killed process left half made keeps no node from starting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Ports have the same names in every ROS domain: whoever opened this one would wait for ever.
PRIVATE = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = "mount -t tmpfs none /dev/shm"


def test_a_node_starts_beside_a_port_that_is_half_made() -> None:
    try:
        subprocess.run([*PRIVATE, MOUNT], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no private /dev/shm can be made here")
    script = Path(__file__).with_name("half_made_port.py")
    run = subprocess.run(
        [*PRIVATE, f'{MOUNT} && exec "$@"', "sh", sys.executable, str(script)],
        capture_output=True, text=True, timeout=120.0, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout == "up\n"
    assert "had left half made" in run.stderr
