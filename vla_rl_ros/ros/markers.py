# SPDX-License-Identifier: Apache-2.0
"""What rviz shows beside robot, images and path: boxes, target against measured axes, texts.

Pure functions from core types to visualization_msgs; called by the supervisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point
from scipy.spatial.transform import Rotation
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.human_ledger import HumanTime
from vla_rl_ros.core.types import BASE_FRAME, FloatArray, Pose
from vla_rl_ros.ros.channels import to_stamp

_AXIS_LENGTH_M = 0.06
_LINE_WIDTH_M = 0.003
_TEXT_HEIGHT_M = 0.035
LIFETIME_NS = 1_000_000_000
"""Markers vanish when their publisher does."""

Colour = tuple[float, float, float, float]
WORKSPACE_COLOUR: Colour = (0.55, 0.55, 0.6, 0.7)
CLIP_COLOUR: Colour = (0.95, 0.35, 0.1, 0.9)
AXIS_COLOURS: tuple[Colour, ...] = ((1, 0, 0, 1), (0, 0.8, 0, 1), (0.1, 0.3, 1, 1))
DRIVER_COLOURS: dict[str, Colour] = {
    "vla": (0.2, 0.6, 1.0, 1.0),
    "residual": (0.5, 0.3, 0.9, 1.0),
    "human": (1.0, 0.6, 0.0, 1.0),
    "hold": (0.6, 0.6, 0.6, 1.0),
}
_EDGES = [(a, b) for a in range(8) for b in range(8) if a < b and (a ^ b) in (1, 2, 4)]
"""Corner pairs of a box that share an edge; bit k of a corner says high or low along axis k."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is drawn, base frame; None and empty leave their markers out.

    Attributes:
        box_min_m: Lower corner of the workspace box.
        box_max_m: Upper corner of the workspace box.
        clip_plus_m: Error clip towards +x, +y, +z.
        clip_minus_m: Error clip towards -x, -y, -z.
        measured: Measured TCP pose.
        target: Target TCP pose.
        driver: Who drives: a key of `DRIVER_COLOURS`, empty while nobody does.
        episode: Episode state.
        success: Probability that the task is done, None while nobody judges.
        human: What people gave.
    """

    episode: EpisodeState
    box_min_m: Sequence[float] | None = None
    box_max_m: Sequence[float] | None = None
    clip_plus_m: Sequence[float] | None = None
    clip_minus_m: Sequence[float] | None = None
    measured: Pose | None = None
    target: Pose | None = None
    driver: str = ""
    success: float | None = None
    human: HumanTime | None = None


def cell_markers(view: View, stamp_ns: int) -> MarkerArray:
    """All markers of the cell."""
    markers: list[Marker] = []
    if view.box_min_m is not None and view.box_max_m is not None:
        box = box_marker(np.asarray(view.box_min_m), np.asarray(view.box_max_m), WORKSPACE_COLOUR)
        markers.append(_named(box, "workspace_box"))
    if view.measured is not None:
        markers.append(_named(axes_marker(view.measured, 1.0), "measured_axes"))
        if view.clip_plus_m is not None and view.clip_minus_m is not None:
            low = view.measured.position_m - np.asarray(view.clip_minus_m)
            high = view.measured.position_m + np.asarray(view.clip_plus_m)
            markers.append(_named(box_marker(low, high, CLIP_COLOUR), "clip_box"))
    if view.target is not None:
        markers.append(_named(axes_marker(view.target, 0.5), "target_axes"))
    if view.measured is not None and view.driver:
        above = view.measured.position_m + np.array([0.0, 0.0, 0.14])
        colour = DRIVER_COLOURS.get(view.driver, DRIVER_COLOURS["hold"])
        markers.append(_named(text_marker(view.driver, above, colour), "driver"))
    if view.measured is not None and view.success is not None:
        beside = view.measured.position_m + np.array([0.0, 0.0, 0.19])
        text = text_marker(f"success {view.success:.2f}", beside, _success_colour(view.success))
        markers.append(_named(text, "success"))
    corner = np.array([0.3, -0.5, 0.7])
    text = text_marker(_episode_text(view.episode), corner, (1, 1, 1, 1))
    markers.append(_named(text, "episode"))
    if view.human is not None:
        below = corner - np.array([0.0, 0.0, 0.16])
        text = text_marker(human_text(view.human), below, DRIVER_COLOURS["human"])
        markers.append(_named(text, "human"))
    for marker in markers:
        marker.header.stamp = to_stamp(stamp_ns)
    return MarkerArray(markers=markers)


def box_marker(low_m: FloatArray, high_m: FloatArray, colour: Colour) -> Marker:
    """Wire frame of an axis-aligned box between two corners, base frame."""
    marker = _marker(Marker.LINE_LIST, colour)
    marker.scale.x = _LINE_WIDTH_M
    corners = [
        _point(np.where([corner >> axis & 1 for axis in range(3)], high_m, low_m))
        for corner in range(8)
    ]
    marker.points = [corners[index] for edge in _EDGES for index in edge]
    return marker


def axes_marker(pose: Pose, alpha: float) -> Marker:
    """Coordinate axes of a pose: x red, y green, z blue."""
    marker = _marker(Marker.LINE_LIST, (1, 1, 1, 1))
    marker.scale.x = _LINE_WIDTH_M
    axes = Rotation.from_quat(pose.quat_xyzw).as_matrix()
    for axis, (red, green, blue, _) in zip(axes.T, AXIS_COLOURS, strict=True):
        tip = pose.position_m + _AXIS_LENGTH_M * axis
        marker.points += [_point(pose.position_m), _point(tip)]
        marker.colors += [_colour((red, green, blue, alpha))] * 2
    return marker


def text_marker(text: str, position_m: FloatArray, colour: Colour) -> Marker:
    """Text that faces the viewer."""
    marker = _marker(Marker.TEXT_VIEW_FACING, colour)
    marker.scale.z = _TEXT_HEIGHT_M
    marker.pose.position = _point(position_m)
    marker.text = text
    return marker


def human_text(time: HumanTime) -> str:
    """Interventions of this episode and of the last few, and what people gave in all."""
    episode, rolling = time.episode, time.rolling
    lines = [
        f"{episode.interventions} interventions, {100.0 * episode.rate:.0f} % of the ticks",
        f"last {time.num_rolling} episodes: {rolling.interventions}, {100.0 * rolling.rate:.0f} %",
        f"human time {time.total_s / 60.0:.1f} min",
    ]
    if time.waiting_s:
        lines.append(f"waiting for a reset for {time.waiting_s:.0f} s")
    return "\n".join(lines)


def _success_colour(probability: float) -> Colour:
    return (1.0 - probability, probability, 0.1, 1.0)


def _episode_text(state: EpisodeState) -> str:
    lines = [f"{state.task}: {state.instruction}" if state.task else "no episode yet"]
    outcome = f" ({state.outcome.value})" if state.outcome else ""
    lines.append(f"{state.phase.value}{outcome} {state.episode_id}".rstrip())
    if state.reason:
        lines.append(state.reason)
    return "\n".join(lines)


def _marker(kind: int, colour: Colour) -> Marker:
    marker = Marker(type=kind, action=Marker.ADD, color=_colour(colour))
    marker.header.frame_id = BASE_FRAME
    marker.pose.orientation.w = 1.0
    marker.lifetime.sec = LIFETIME_NS // 1_000_000_000
    return marker


def _named(marker: Marker, name: str) -> Marker:
    marker.ns = name
    return marker


def _colour(rgba: Colour) -> ColorRGBA:
    red, green, blue, alpha = (float(value) for value in rgba)
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)


def _point(position_m: FloatArray) -> Point:
    x, y, z = (float(value) for value in position_m)
    return Point(x=x, y=y, z=z)
