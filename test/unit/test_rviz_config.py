# SPDX-License-Identifier: Apache-2.0
"""The rviz view against the topic table and the markers that are published."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from vla_rl_ros.core.types import BASE_FRAME, TCP_FRAME
from vla_rl_ros.ros.graph import CAMERAS, TOPIC_BY_NAME
from vla_rl_ros.ros.share import share_path

TYPES = {
    "Image": "sensor_msgs/msg/Image",
    "Path": "nav_msgs/msg/Path",
    "Pose": "geometry_msgs/msg/PoseStamped",
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
}
# Published by robot_state_publisher, not by the graph.
FOREIGN = {"/robot_description"}


def view() -> dict[str, Any]:
    return yaml.safe_load(share_path("config/rviz/cell.rviz").read_text())["Visualization Manager"]


def kind(display: dict[str, Any]) -> str:
    return display["Class"].removeprefix("rviz_default_plugins/")


def displays(name: str) -> list[dict[str, Any]]:
    return [display for display in view()["Displays"] if kind(display) == name]


def topics(display: dict[str, Any]) -> list[dict[str, Any]]:
    return [v for k, v in display.items() if k.endswith("Topic") and isinstance(v, dict)]


def test_every_topic_is_in_the_table_with_the_type_of_its_display() -> None:
    seen = 0
    for display in view()["Displays"]:
        for topic in topics(display):
            if topic["Value"] in FOREIGN:
                continue
            row = TOPIC_BY_NAME[topic["Value"].removeprefix("/")]
            assert row.type == TYPES[kind(display)], row.name
            is_latched = topic["Durability Policy"] == "Transient Local"
            assert not is_latched or row.qos == "LATCHED"
            seen += 1
    assert seen >= 6


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Image", {f"/camera/{camera}/image" for camera in CAMERAS}),
        ("Path", {"/policy/path"}),
        ("Pose", {"/arm/tcp_pose", "/arm/target_pose"}),
        ("MarkerArray", {"/viz/markers"}),
    ],
)
def test_everything_worth_seeing_is_shown(name: str, wanted: set[str]) -> None:
    shown = {t["Value"] for d in displays(name) for t in topics(d)}
    assert shown == wanted


def test_the_robot_its_frames_and_a_grid_are_shown() -> None:
    assert all(displays(name) for name in ("RobotModel", "TF", "Grid"))
    assert view()["Global Options"]["Fixed Frame"] == BASE_FRAME
    assert {BASE_FRAME, TCP_FRAME} <= set(displays("TF")[0]["Frames"])


def test_the_marker_namespaces_are_those_that_are_published() -> None:
    pytest.importorskip("visualization_msgs")
    import numpy as np

    from vla_rl_ros.core.episode import EpisodeState
    from vla_rl_ros.core.human_ledger import DriveCount, HumanTime
    from vla_rl_ros.core.types import Pose
    from vla_rl_ros.ros.markers import View, cell_markers

    pose = Pose(np.array([0.5, 0.0, 0.25]), np.array([1.0, 0.0, 0.0, 0.0]))
    full = View(
        episode=EpisodeState(task="lift", instruction="lift the red cube"),
        box_min_m=(0.28, -0.35, 0.0),
        box_max_m=(0.72, 0.35, 0.6),
        clip_plus_m=(0.01, 0.01, 0.02),
        clip_minus_m=(0.01, 0.01, 0.005),
        measured=pose,
        target=pose,
        driver="human",
        success=0.8,
        human=HumanTime(rolling=DriveCount(ticks=50, human_ticks=5, interventions=2)),
    )
    markers = {marker.ns: marker for marker in cell_markers(full, 7).markers}
    assert set(markers) == set(displays("MarkerArray")[0]["Namespaces"])
    assert {m.header.frame_id for m in markers.values()} == {BASE_FRAME}
    clip = np.array([[p.x, p.y, p.z] for p in markers["clip_box"].points])
    assert np.allclose(clip.min(axis=0), [0.49, -0.01, 0.245])
    assert np.allclose(clip.max(axis=0), [0.51, 0.01, 0.27])
    # Twelve edges, each two corners that differ along one axis only.
    assert len(clip) == 24
    assert ((np.abs(clip[::2] - clip[1::2]) > 1e-9).sum(axis=1) == 1).all()
    assert "lift the red cube" in markers["episode"].text
    assert markers["driver"].text == "human"


def test_nothing_is_drawn_of_what_is_not_known() -> None:
    pytest.importorskip("visualization_msgs")
    from vla_rl_ros.core.episode import EpisodeState
    from vla_rl_ros.ros.markers import View, cell_markers

    markers = cell_markers(View(episode=EpisodeState()), 0).markers
    assert [marker.ns for marker in markers] == ["episode"]
