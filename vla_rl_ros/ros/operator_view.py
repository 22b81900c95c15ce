# SPDX-License-Identifier: Apache-2.0
"""A window onto a running graph for an operator: what is going on, and the few things to press.

Reads topics and calls services of the supervisor and the arm, owns nothing, and dies without
harm. Owns its ROS context; `spin_once` belongs to one thread, everything else may be called from
any. Used by `vla-rl-ros operator`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from functools import partial
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from vla_rl_ros.core.episode import EpisodeState, Phase
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.types import ImageArray
from vla_rl_ros.ros.action_codecs import decode_executed
from vla_rl_ros.ros.codecs import decode_image
from vla_rl_ros.ros.episode_codec import decode_episode
from vla_rl_ros.ros.gated_client import GatedClient
from vla_rl_ros.ros.graph import CAMERAS
from vla_rl_ros.ros.human_time import decode_human_time
from vla_rl_ros.ros.joining import joined_context
from vla_rl_ros.ros.operator_records import human_record, last_record, rounded, success_record
from vla_rl_ros.ros.sampler import Sampler, Tap

REFRESH_S = 0.1
WATCHED_S = 5.0
"""Images are listened to for so long after the last one was asked for."""
CURRENT_S = 1.0
"""Age at which a tick or a judgement no longer describes the present."""
NUM_AT_ONCE = 50

STOP = "stop"
BUTTONS: dict[str, tuple[str, Any, dict[str, bool]]] = {
    "start": ("supervisor/start_episode", Trigger, {}),
    "success": ("supervisor/end_episode", SetBool, {"data": True}),
    "failure": ("supervisor/end_episode", SetBool, {"data": False}),
    # Straight to the arm: it works without a supervisor.
    STOP: ("impedance_controller/hold", Trigger, {}),
    "recover": ("supervisor/recover", Trigger, {}),
    "reset_done": ("supervisor/reset_done", Trigger, {}),
}
"""What can be pressed: service, its type, its request."""


class _Ear:
    """The newest valid value of a topic and when it came."""

    def __init__(self, tap: Tap[Any], decode: Any) -> None:  # noqa: ANN401 - message to value
        self._tap, self._decode = tap, decode
        self._begin_s = time.monotonic()
        self.value: Any = None
        self.heard_s: float | None = None

    def listen(self, now_s: float) -> None:
        for message in self._tap.drain(NUM_AT_ONCE):
            try:
                self.value = self._decode(message)
            except InvalidCommandError:
                # Whoever acts on this topic counts and reports it.
                continue
            self.heard_s = now_s

    def silent_s(self, now_s: float) -> float:
        """Since the last message, before the first one since somebody listens."""
        return now_s - (self._begin_s if self.heard_s is None else self.heard_s)

    def fresh(self, now_s: float) -> Any:  # noqa: ANN401 - of the topic
        return self.value if self.silent_s(now_s) < CURRENT_S else None


class OperatorView:
    """Listens, answers `snapshot` and `image`, presses buttons."""

    def __init__(self, name: str = "operator_view") -> None:
        """Join the graph under `name`."""
        self._context = joined_context()
        self.node = Node(name, context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._lock = threading.Lock()
        self._sampler = Sampler(self.node)
        self._episode = _Ear(self._sampler.tap("episode/state", 10), decode_episode)
        self._human = _Ear(self._sampler.tap("human/ledger"), decode_human_time)
        self._executed = _Ear(self._sampler.tap("action/executed"), decode_executed)
        self._judges = {
            name: _Ear(self._sampler.tap(name), success_record)
            for name in ("task/success", "sim/success")
        }
        self._diagnostics: Tap[DiagnosticArray] = self._sampler.tap("/diagnostics", NUM_AT_ONCE)
        self._nodes: dict[str, tuple[int, str, float]] = {}
        self._camera_sampler: Sampler | None = None
        self._images: dict[str, _Ear] = {}
        self._watched_s = float("-inf")
        self._last: EpisodeState | None = None
        self._phase_since: tuple[Phase, str, float] = (Phase.BRINGUP, "", time.monotonic())
        self._clients = {
            button: GatedClient(self.node, kind, service)
            for button, (service, kind, _) in BUTTONS.items()
            if button != STOP
        }
        service, kind, _ = BUTTONS[STOP]
        # Used from any thread, so it has to be waited for all the time.
        self._stop: Any = self.node.create_client(kind, service)
        self._pressed: list[tuple[str, Future[tuple[bool, str]]]] = []

    def close(self) -> None:
        """Leave the graph; idempotent."""
        if self._context.ok():
            self._executor.shutdown()
            self._sampler.destroy()
            if self._camera_sampler is not None:
                self._camera_sampler.destroy()
            self.node.destroy_node()
            rclpy.shutdown(context=self._context)

    def spin_once(self) -> None:
        """Handle what has come in one refresh period."""
        self._executor.spin_once(timeout_sec=REFRESH_S)
        now_s = time.monotonic()
        with self._lock:
            self._send_pressed()
            self._listen(now_s)

    def _listen(self, now_s: float) -> None:
        for ear in (self._episode, self._human, self._executed, *self._judges.values()):
            ear.listen(now_s)
        state: EpisodeState | None = self._episode.value
        if state is not None and (state.phase, state.episode_id) != self._phase_since[:2]:
            self._phase_since = (state.phase, state.episode_id, now_s)
        if state is not None and state.outcome is not None:
            self._last = state
        for message in self._diagnostics.drain(NUM_AT_ONCE):
            for status in message.status:
                raw = status.level[0] if isinstance(status.level, bytes) else status.level
                name = status.name.rsplit("/", 1)[-1]
                self._nodes[name] = (int(raw), str(status.message), now_s)
        self._listen_to_cameras(now_s)

    def _listen_to_cameras(self, now_s: float) -> None:
        is_watched = now_s - self._watched_s < WATCHED_S
        if is_watched and self._camera_sampler is None:
            self._camera_sampler = sampler = Sampler(self.node)
            taps = {name: sampler.tap(f"camera/{name}/image") for name in CAMERAS}
            self._images = {name: _Ear(tap, decode_image) for name, tap in taps.items()}
        elif not is_watched and self._camera_sampler is not None:
            self._images = {}
            self._camera_sampler.destroy()
            self._camera_sampler = None
        for ear in self._images.values():
            ear.listen(now_s)

    def image(self, camera: str) -> ImageArray | None:
        """Newest image of a camera, None before the first; asking keeps the cameras listened to.

        Raises:
            KeyError: There is no such camera.
        """
        if camera not in CAMERAS:
            raise KeyError(camera)
        with self._lock:
            self._watched_s = time.monotonic()
            ear = self._images.get(camera)
            return None if ear is None else ear.value

    def press(self, button: str) -> Future[tuple[bool, str]]:
        """Press a button of `BUTTONS`; STOP is sent before this returns, whatever else goes on.

        Returns:
            Whether it worked, and the answer as a sentence.

        Raises:
            KeyError: There is no such button.
        """
        if button not in BUTTONS:
            raise KeyError(button)
        answer: Future[tuple[bool, str]] = Future()
        if button == STOP:
            self._send_stop(answer)
            return answer
        with self._lock:
            self._pressed.append((button, answer))
        self._executor.wake()
        return answer

    def _send_stop(self, answer: Future[tuple[bool, str]]) -> None:
        """Not in turn, and without the lock: others hold it while they decode images."""
        service, kind, _ = BUTTONS[STOP]
        if not self._stop.service_is_ready():
            answer.set_result((False, _missing(service)))
            return
        self._stop.call_async(kind.Request()).add_done_callback(partial(_hand_over, None, answer))

    def _send_pressed(self) -> None:
        pressed, self._pressed = self._pressed, []
        for button, answer in pressed:
            service, kind, fields = BUTTONS[button]
            client = self._clients[button]
            if not client.service_is_ready():
                answer.set_result((False, _missing(service)))
                continue
            future = client.call_async(kind.Request(**fields))
            future.add_done_callback(partial(_hand_over, client, answer))

    def snapshot(self) -> dict[str, Any]:
        """What the page shows, as JSON values; ages in seconds, without judges never heard."""
        with self._lock:
            now_s = time.monotonic()
            judges = {
                name: {"silent_s": rounded(ear.silent_s(now_s)), "value": ear.fresh(now_s)}
                for name, ear in self._judges.items()
                if ear.heard_s is not None
            }
            row = self._executed.fresh(now_s)
            return {
                "episode": self._episode_record(now_s),
                "last": last_record(self._last),
                "driver": row.source.value if row is not None else "",
                "success": judges,
                "human": human_record(self._human.value),
                "silent_s": {
                    "supervisor": rounded(self._episode.silent_s(now_s)),
                    "gate": rounded(self._executed.silent_s(now_s)),
                    **{
                        f"camera_{name}": rounded(ear.silent_s(now_s))
                        for name, ear in self._images.items()
                    },
                },
                "nodes": [
                    {
                        "name": name,
                        "level": level,
                        "message": message,
                        "silent_s": rounded(now_s - heard_s),
                    }
                    for name, (level, message, heard_s) in sorted(self._nodes.items())
                ],
                "cameras": list(CAMERAS),
            }

    def _episode_record(self, now_s: float) -> dict[str, Any] | None:
        state: EpisodeState | None = self._episode.value
        if state is None:
            return None
        return {
            "phase": state.phase.value,
            "id": state.episode_id,
            "task": state.task,
            "instruction": state.instruction,
            "outcome": state.outcome.value if state.outcome else "",
            "reset": state.reset.value if state.reset else "",
            "reason": state.reason,
            "is_waiting": state.is_waiting,
            "phase_s": rounded(now_s - self._phase_since[2]),
        }


def _missing(service: str) -> str:
    return f"nobody offers {service}: is its node running?"


def _hand_over(
    client: GatedClient | None,
    answer: Future[tuple[bool, str]],
    done: Any,  # noqa: ANN401 - rclpy's own future
) -> None:
    response = done.result()
    if client is not None:
        client.release(done)
    if response is None:
        answer.set_result((False, "the call was cancelled"))
    else:
        answer.set_result((bool(response.success), str(response.message)))
