# SPDX-License-Identifier: Apache-2.0
"""Runs the graph for `bench latency` and follows its chunks; what is followed is told there."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vla_rl_ros.core.errors import ConfigError, DeviceError
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.graph_options import GraphOptions, ParamValue
from vla_rl_ros.tools.latency_chain import OVERHEAD_PARTS, Chain, Inference, chain_of
from vla_rl_ros.tools.session import BRINGUP_TIMEOUT_S, wait_for_bringup

if TYPE_CHECKING:
    from vla_rl_ros.ros.latency_probe import LatencyProbe
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.tools.child import Child
    from vla_rl_ros.tools.graph import RunningGraph

SENSOR_PX = 480
RECORDING_RATE_HZ = 30
EPISODE_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 8.0
_NODE = "vla_inference"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyPlan:
    """What to measure.

    Attributes:
        policy: Name of the policy.
        path: Its weights, empty where it has or needs none.
        duration_s: Time of execution per source of images.
        recording_s: Length of the recording that is played in a loop.
        robot_ip: Loopback address of the simulated control box.
        image_px: Width and height of published images.
        seed: Of the first reset.
    """

    policy: str
    path: str
    duration_s: float
    recording_s: float
    robot_ip: str
    image_px: int
    seed: int


@dataclass(slots=True)
class SourceResult:
    """What one source of images gave.

    Attributes:
        chains: One per chunk that was played.
        inferences: All inferences, played or not.
        tick_jitter_p99_ms: Lateness of the actor's ticks, the worst window of the run.
        frames: Images delivered.
        frames_missed: Numbers missing among the numbered frames of a recording.
    """

    chains: list[Chain] = field(default_factory=list)
    inferences: list[Inference] = field(default_factory=list)
    tick_jitter_p99_ms: float = float("nan")
    frames: int = 0
    frames_missed: int = 0

    def summary(self) -> dict[str, Any]:
        """Figures of this source, milliseconds.

        Raises:
            DeviceError: Not one chunk could be followed from camera to arm.
        """
        if not self.chains:
            raise DeviceError("no chunk was followed from camera to arm; see the logs")
        figures: dict[str, Any] = {"chunks": len(self.chains)}
        for name in ("overhead_ms", "wait_ms", "total_ms"):
            figures |= _quantiles(name, [getattr(chain, name) for chain in self.chains])
        figures |= _quantiles("inference_ms", [each.model_ms for each in self.inferences])
        for name in OVERHEAD_PARTS:
            figures |= _quantiles(name, [getattr(chain, name) for chain in self.chains])
        figures["tick_jitter_p99_ms"] = self.tick_jitter_p99_ms
        figures["frames"] = self.frames
        figures["frames_missed"] = self.frames_missed
        return figures


def _quantiles(name: str, values: Sequence[float]) -> dict[str, float]:
    stem = name.removesuffix("_ms")
    return {f"{stem}_p{q}_ms": float(np.percentile(values, q)) for q in (50, 99)}


def measure(source: str, plan: LatencyPlan, out: Path) -> SourceResult:
    """Run episodes with one source of images and follow every chunk.

    Args:
        source: ``sim``, or ``realsense`` for a recording played through the SDK.
        plan: What to run.
        out: Where logs and times go.
    """
    from vla_rl_ros.ros.latency_probe import LatencyProbe
    from vla_rl_ros.ros.observer import GraphObserver
    from vla_rl_ros.ros.urgency import Urgency, hurry
    from vla_rl_ros.tools.graph import run_graph
    from vla_rl_ros.tools.timed_policy import fingerprint

    out.mkdir(parents=True, exist_ok=True)
    times = out / "inferences.jsonl"
    times.unlink(missing_ok=True)
    options = GraphOptions(
        out=out,
        robot_ip=plan.robot_ip,
        image_px=plan.image_px,
        seed=plan.seed,
        policy=plan.policy,
        checkpoint=plan.path,
        record=False,
        exclude=frozenset({_NODE}),
        overrides=_recorded(plan, out) if source == "realsense" else {},
    )
    with (
        run_graph(options) as graph,
        _timed_inference(options, times, graph.log_dir) as child,
        GraphObserver() as observer,
    ):
        _wait_until_active(observer, graph, child)
        # Times of delivery are those of this process: it must stand where the nodes stand.
        hurry(Urgency.COMMAND, is_for_callbacks=False)
        probe = LatencyProbe(observer, fingerprint=fingerprint, numbered=source == "realsense")
        _execute(observer, plan.duration_s, graph.check, source)
        result = _collect(probe, read_inferences(times))
        result.tick_jitter_p99_ms = observer.number("residual_actor", "tick_late_p99_ms")
    return result


def _execute(
    observer: GraphObserver, duration_s: float, check: Callable[[], None], source: str
) -> None:
    """Run episodes, whatever comes of them, until they have lasted `duration_s` together."""
    from tqdm import tqdm

    from vla_rl_ros.core.episode import Phase
    from vla_rl_ros.ros.latency_probe import end_episode

    def is_in(*phases: Phase) -> bool:
        return observer.episode is not None and observer.episode.phase in phases

    wait_for_bringup(observer, check)
    done_s = 0.0
    with tqdm(total=round(duration_s), desc=f"bench latency, {source}", unit="s") as progress:
        while done_s < duration_s:
            observer.wait_until(
                lambda: is_in(Phase.IDLE), EPISODE_TIMEOUT_S, "an idle cell", check
            )
            observer.trigger("supervisor/start_episode")
            observer.wait_until(
                lambda: is_in(Phase.RUNNING, Phase.FAULT),
                EPISODE_TIMEOUT_S,
                "an episode to begin",
                check,
            )
            begin_s = time.monotonic()
            while is_in(Phase.RUNNING) and done_s + time.monotonic() - begin_s < duration_s:
                observer.spin(0.2)
                check()
            done_s += time.monotonic() - begin_s
            progress.update(min(round(done_s), progress.total) - progress.n)
            if is_in(Phase.RUNNING):
                end_episode(observer, EPISODE_TIMEOUT_S)
            if is_in(Phase.FAULT):
                observer.trigger("supervisor/recover", timeout_s=EPISODE_TIMEOUT_S)


def _collect(probe: LatencyProbe, inferences: list[Inference]) -> SourceResult:
    result = SourceResult(inferences=inferences)
    for inference in inferences:
        stamp_ns = inference.stamp_ns
        reported_ns, received_ns = probe.reports.get(stamp_ns), probe.chunks.get(stamp_ns)
        played = probe.played.get(stamp_ns)
        if reported_ns is None or received_ns is None or played is None:
            continue
        chain = chain_of(inference, probe.frames, reported_ns, received_ns, played)
        if chain is not None:
            result.chains.append(chain)
    result.frames = sum(len(frames) for frames in probe.frames.values())
    result.frames_missed = sum(probe.missed.values())
    return result


def read_inferences(path: Path) -> list[Inference]:
    """Lines of `tools/timed_policy.py`; a half-written last one is left out."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    return [Inference(**json.loads(line)) for line in lines]


def _recorded(plan: LatencyPlan, out: Path) -> dict[str, dict[str, ParamValue]]:
    """Parameters of cameras that play a recording, which is written first.

    A policy that sees a recording is blind: its arm stays in the free space around its home, where
    it cannot press into anything until a reflex ends the episode.
    """
    from vla_rl_ros.hardware.realsense_recording import RecordingSpec, write_recording

    spec = RecordingSpec(
        width=SENSOR_PX,
        height=SENSOR_PX,
        rate_hz=RECORDING_RATE_HZ,
        num_frames=round(plan.recording_s * RECORDING_RATE_HZ),
        has_depth=False,
    )
    path = write_recording(out / "recording.db3", spec)
    parameters: dict[str, ParamValue] = {
        "driver": "realsense",
        "file": str(path.resolve()),
        "loop": True,
        "sensor_width_px": SENSOR_PX,
        "sensor_height_px": SENSOR_PX,
    }
    box: dict[str, ParamValue] = {
        "limits.box_min_m": [0.42, -0.12, 0.20],
        "limits.box_max_m": [0.58, 0.12, 0.35],
        "limits.max_tilt_rad": 0.2,
    }
    return {"intervention": box, **{f"camera_{camera}": parameters for camera in CAMERAS}}


@contextmanager
def _timed_inference(options: GraphOptions, times: Path, log_dir: Path) -> Iterator[Child]:
    """The inference process with a timed policy, in place of the one left out of the graph."""
    from vla_rl_ros.ros.processes import build_graph, ros_arguments
    from vla_rl_ros.tools import timed_policy
    from vla_rl_ros.tools.child import Child, Command
    from vla_rl_ros.tools.graph import write_parameters

    whole = build_graph(replace(options, exclude=frozenset()))
    original = next(spec for spec in whole if spec.name == _NODE)
    parameters = {
        **original.parameters[_NODE],
        "policy": timed_policy.NAME,
        # The supervisor of the graph does not know of it.
        "autostart": True,
    }
    spec = replace(original, parameters={_NODE: parameters})
    arguments = ros_arguments(spec, write_parameters(spec, log_dir))
    command = Command(
        name=_NODE,
        argv=(sys.executable, "-m", timed_policy.__name__, *arguments),
        nice=spec.nice,
    )
    environment = {
        **os.environ,
        timed_policy.POLICY_VARIABLE: options.policy,
        timed_policy.FILE_VARIABLE: str(times.resolve()),
    }
    child = Child(command, log_dir / f"{_NODE}.log", environment)
    child.start(time.monotonic())
    try:
        yield child
    finally:
        child.send(signal.SIGINT)
        deadline_s = time.monotonic() + STOP_TIMEOUT_S
        while child.is_alive and time.monotonic() < deadline_s:
            time.sleep(0.02)
        child.send(signal.SIGKILL)


def _wait_until_active(observer: GraphObserver, graph: RunningGraph, child: Child) -> None:
    def check() -> None:
        graph.check()
        status = observer.levels.get(_NODE, 0), observer.messages.get(_NODE, "")
        if not child.is_alive or status[0] >= 2:
            said = status[1] or "\n".join(child.last_lines())
            raise ConfigError(f"the policy does not come up: {said}")

    observer.wait_until(
        lambda: observer.diagnostics.get(_NODE, {}).get("lifecycle") == "active",
        BRINGUP_TIMEOUT_S,
        f"the policy to be loaded; see {child.log_path}",
        check,
    )
