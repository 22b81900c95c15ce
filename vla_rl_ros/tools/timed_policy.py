# SPDX-License-Identifier: Apache-2.0
"""The process `vla_inference` with a clock around its policy, for `bench latency`.

The node is the real one and knows nothing of it; only the policy it makes is wrapped. Each
inference leaves one JSON line that says when the model began and ended and what it looked at, so
that the model's own time can be taken out of the way from camera to arm.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
import weakref
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vla_rl_ros.policies.protocol import (
    POLICY_MODULES,
    ChunkPolicy,
    PolicyEnvironment,
    PolicyObservation,
    PolicySettings,
    make_policy,
)

if TYPE_CHECKING:
    from vla_rl_ros.core.prefix import Prefix
    from vla_rl_ros.core.types import FloatArray

NAME = "timed"
POLICY_VARIABLE = "VLA_RL_TIMED_POLICY"
"""Environment variable with the name of the policy to wrap."""
FILE_VARIABLE = "VLA_RL_TIMED_FILE"
"""Environment variable with the file that gets the lines."""


def fingerprint(pixels: Any) -> int:  # noqa: ANN401 - whatever has the buffer interface
    """Checksum that tells one image from another, of contiguous bytes."""
    return zlib.crc32(pixels)


class TimedPolicy:
    """Answers as the wrapped policy does, and writes down when.

    It looks at every camera of the cell even if the wrapped policy needs none, so that the way of
    the images is always part of what is measured.
    """

    def __init__(self, policy: ChunkPolicy, cameras: tuple[str, ...], path: Path) -> None:
        """Wrap.

        Args:
            policy: The policy.
            cameras: Cameras of the cell.
            path: File that gets one line per inference.
        """
        self.cameras = cameras
        self._policy = policy
        self._log = path.open("a", encoding="utf-8", buffering=1)
        weakref.finalize(self, self._log.close)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the wrapped policy's attributes
        return getattr(self._policy, name)

    def infer(self, observation: PolicyObservation, prefix: Prefix | None) -> FloatArray:
        """Infer, then note the times; the checksums count as the model's time, not as overhead."""
        enter_ns = time.time_ns()
        begin_s = time.perf_counter()
        actions = self._policy.infer(observation, prefix)
        model_s = time.perf_counter() - begin_s
        row = {
            "stamp_ns": observation.stamp_ns,
            "enter_ns": enter_ns,
            "model_ms": 1e3 * model_s,
            "images": {name: fingerprint(image) for name, image in observation.images.items()},
        }
        line = json.dumps(row).removesuffix("}")
        # After this moment nothing but one write: the clock would count as overhead.
        self._log.write(f'{line}, "exit_ns": {time.time_ns()}}}\n')
        return actions


def make(settings: PolicySettings, environment: PolicyEnvironment) -> Any:  # noqa: ANN401
    """Entry point of the back end; what to wrap is in the environment."""
    # Eyes belong around all of it, where `make_policy` puts them.
    own = dataclasses.replace(settings, eyes="")
    policy = make_policy(os.environ[POLICY_VARIABLE], own, environment)
    return TimedPolicy(policy, environment.cameras, Path(os.environ[FILE_VARIABLE]))


def main() -> int:
    """Run the node with `timed` among its policies."""
    from vla_rl_ros.ros.nodes.vla_inference import VlaInferenceNode
    from vla_rl_ros.ros.run import run
    from vla_rl_ros.ros.urgency import Urgency

    POLICY_MODULES[NAME] = "vla_rl_ros.tools.timed_policy"
    return run(VlaInferenceNode, urgency=Urgency.COMMAND)


if __name__ == "__main__":
    sys.exit(main())
