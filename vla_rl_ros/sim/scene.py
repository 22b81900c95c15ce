# SPDX-License-Identifier: Apache-2.0
"""The one scene of the simulated cell: a Franka arm with the objects of all tasks on its table.

`add_scene` extends the element tree of a `franky_sim` simulator before it is compiled, so the same
MJCF serves the simulator behind Franka's protocol and the in-process one. The world frame is the
arm's base frame.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import TYPE_CHECKING

import mujoco
from franky_sim.mujoco_simulator import MujocoSimulator

from vla_rl_ros.core.errors import SceneError
from vla_rl_ros.sim.look import apply_config, apply_lite_look
from vla_rl_ros.sim.scene_ids import ROBOT_PREFIX, SceneIds
from vla_rl_ros.sim.variants import SceneConfig

if TYPE_CHECKING:
    from collections.abc import Iterable

TCP_OFFSET_M = 0.1034
"""Distance of the TCP from the hand frame, along the hand's z axis."""
CUBE_HALF_M = 0.02
PEG_HALF_WIDTH_M = 0.01
PEG_HALF_LENGTH_M = 0.035
PEG_IN_HAND_M = 0.02
"""Centre of a held peg below the TCP, along the tool axis."""
BLOCK_HALF_HEIGHT_M = 0.02
BLOCK_WALL_HALF_M = 0.0125
BUTTON_BASE_HALF_M = (0.03, 0.03, 0.015)
BUTTON_CAP_HALF_HEIGHT_M = 0.01
BUTTON_CAP_RADIUS_M = 0.017
BUTTON_STIFFNESS_N_PER_M = 600.0
BUTTON_PRELOAD_M = 0.004
BUTTON_STROKE_M = 0.01
WALL_HALF_M = (0.02, 0.3, 0.25)
PEG_PARKING_M = (-2.0, 1.0, 0.5)
WALL_PARKING_M = (-2.5, 0.0, 0.25)
MAX_IMAGE_PX = 640
HOME_Q_RAD = (0.0, -0.04175871, 0.0, -2.33427222, 0.0, 2.29251351, 0.78539816)
"""Joint angles at which the TCP stands at (0.5, 0, 0.25) m, pointing straight down."""

_RED, _YELLOW, _BLUE, _GREEN = ".9 .03 .03 1", "1 .8 0 1", ".03 .2 .95 1", ".03 .75 .1 1"


def _element(parent: ET.Element, tag: str, attributes: Mapping[str, object]) -> ET.Element:
    """Append an element; tuples become MJCF's space-separated numbers."""
    return ET.SubElement(
        parent,
        tag,
        {
            key: " ".join(f"{v:.9g}" for v in value) if isinstance(value, tuple) else str(value)
            for key, value in attributes.items()
        },
    )


def add_scene(sim: MujocoSimulator, config: SceneConfig) -> None:
    """Add objects, cameras and options to a simulator that has its robot but is not started.

    Args:
        sim: Initialised, with exactly one robot at the origin, not yet started.
        config: Variant of the cell.

    Raises:
        SceneError: If the simulator has no robot yet.
    """
    world, root = sim.worldbody, sim.scene
    hand = _find(world.iter("body"), f"{ROBOT_PREFIX}hand")
    _element(root, "option", {"jacobian": "dense"})
    _element(root, "size", {"memory": "8M"})
    _element(
        _section(root, "visual"), "global", {"offwidth": MAX_IMAGE_PX, "offheight": MAX_IMAGE_PX}
    )
    _element(hand, "site", {"name": "tcp", "pos": (0.0, 0.0, TCP_OFFSET_M), "group": 5})
    _add_cameras(world, hand)
    _element(
        world,
        "geom",
        # Looks only: the plane below carries the objects, one contact pair less per object.
        {"name": "table", "type": "box", "pos": (0.45, 0.0, -0.0095), "size": (0.55, 0.6, 0.01),
         "rgba": ".5 .5 .5 1", "contype": 0, "conaffinity": 0, "group": 1},
    )  # fmt: skip
    _add_cube(world)
    _add_button(root, world)
    _add_block(world, config)
    _add_peg(root, world, config)
    wall = _element(world, "body", {"name": "wall", "mocap": "true", "pos": WALL_PARKING_M})
    _element(wall, "geom", {"type": "box", "size": WALL_HALF_M, "rgba": ".5 .5 .55 1"})


def _find(elements: Iterable[ET.Element], name: str) -> ET.Element:
    for element in elements:
        if element.get("name") == name:
            return element
    raise SceneError(f"add_scene needs a simulator with a robot: no '{name}' in its tree")


def _section(root: ET.Element, tag: str) -> ET.Element:
    found = root.find(tag)
    return ET.SubElement(root, tag) if found is None else found


def _add_cameras(world: ET.Element, hand: ET.Element) -> None:
    _element(
        hand,
        "camera",
        {"name": "wrist", "pos": "0.08 0 0", "xyaxes": "0 -1 0 -0.94 0 -0.34", "fovy": 70},
    )
    _element(
        world,
        "camera",
        {"name": "front", "pos": "1.15 0 0.65", "xyaxes": "0 1 0 -0.65 0 0.7", "fovy": 36},
    )


def _add_cube(world: ET.Element) -> None:
    cube = _element(world, "body", {"name": "cube", "pos": (0.45, -0.1, CUBE_HALF_M)})
    _element(cube, "freejoint", {"name": "cube"})
    _element(
        cube,
        "geom",
        {"type": "box", "size": (CUBE_HALF_M,) * 3, "mass": 0.05, "rgba": _RED, "condim": 4,
         "friction": (1.0, 0.02, 0.001)},
    )  # fmt: skip


def _add_button(root: ET.Element, world: ET.Element) -> None:
    base_height = 2.0 * BUTTON_BASE_HALF_M[2]
    base = _element(
        world,
        "body",
        {"name": "button_base", "mocap": "true", "pos": (0.45, 0.1, BUTTON_BASE_HALF_M[2])},
    )
    _element(base, "geom", {"type": "box", "size": BUTTON_BASE_HALF_M, "rgba": ".12 .12 .14 1"})
    cap_height = base_height + BUTTON_CAP_HALF_HEIGHT_M - BUTTON_BASE_HALF_M[2]
    cap = _element(base, "body", {"name": "button", "pos": (0.0, 0.0, cap_height), "gravcomp": 1})
    _element(
        cap,
        "joint",
        {"name": "button", "type": "slide", "axis": "0 0 1", "range": (-BUTTON_STROKE_M, 0.0),
         "limited": "true", "stiffness": BUTTON_STIFFNESS_N_PER_M, "damping": 3,
         "springref": BUTTON_PRELOAD_M},
    )  # fmt: skip
    _element(
        cap,
        "geom",
        {"type": "cylinder", "size": (BUTTON_CAP_RADIUS_M, BUTTON_CAP_HALF_HEIGHT_M),
         "rgba": _YELLOW, "mass": 0.05},
    )  # fmt: skip
    # The cap sinks into its base, which contacts would forbid.
    _element(_section(root, "contact"), "exclude", {"body1": "button_base", "body2": "button"})


def _add_block(world: ET.Element, config: SceneConfig) -> None:
    hole = PEG_HALF_WIDTH_M + config.peg_clearance_m
    wall, outer = BLOCK_WALL_HALF_M, hole + 2.0 * BLOCK_WALL_HALF_M
    block = _element(
        world, "body", {"name": "block", "mocap": "true", "pos": (0.6, 0.0, BLOCK_HALF_HEIGHT_M)}
    )
    for x, y, half_x, half_y in (
        (hole + wall, 0.0, wall, outer),
        (-hole - wall, 0.0, wall, outer),
        (0.0, hole + wall, hole, wall),
        (0.0, -hole - wall, hole, wall),
    ):
        _element(
            block,
            "geom",
            {"type": "box", "pos": (x, y, 0.0), "size": (half_x, half_y, BLOCK_HALF_HEIGHT_M),
             "rgba": _BLUE, "friction": (0.4, 0.01, 0.001)},
        )  # fmt: skip


def _add_peg(root: ET.Element, world: ET.Element, config: SceneConfig) -> None:
    # Without weight while it is parked (no contacts to solve) and while it is a welded tool, whose
    # load the control box compensates; `tasks.apply_layout` gives the weight back otherwise.
    peg = _element(world, "body", {"name": "peg", "pos": PEG_PARKING_M, "gravcomp": 1})
    _element(peg, "freejoint", {"name": "peg"})
    _element(
        peg,
        "geom",
        # Stiff contacts: the default ones give by a millimetre, as much as the hole is wider.
        {"type": "box", "size": (PEG_HALF_WIDTH_M, PEG_HALF_WIDTH_M, PEG_HALF_LENGTH_M),
         "mass": 0.06, "rgba": _GREEN, "condim": 4, "friction": (0.4, 0.02, 0.001),
         "solref": (0.004, 1.0), "solimp": (0.95, 0.99, 0.001)},
    )  # fmt: skip
    if not config.peg_is_welded:
        return
    _element(
        _section(root, "equality"),
        "weld",
        {"name": "peg", "body1": f"{ROBOT_PREFIX}hand", "body2": "peg", "active": "false",
         "relpose": (0.0, 0.0, TCP_OFFSET_M + PEG_IN_HAND_M, 1.0, 0.0, 0.0, 0.0),
         "solref": (0.004, 1.0)},
    )  # fmt: skip
    for finger in ("left_finger", "right_finger"):
        _element(
            _section(root, "contact"),
            "exclude",
            {"body1": "peg", "body2": f"{ROBOT_PREFIX}{finger}"},
        )


def finish_model(model: mujoco.MjModel, config: SceneConfig) -> SceneIds:
    """Apply look, friction, light and camera offsets to a freshly compiled model; once per model.

    Args:
        model: Compiled from a tree that `add_scene` extended.
        config: The same variant.

    Returns:
        The addresses of everything in the scene.
    """
    ids = SceneIds.from_model(model)
    # The simulator drives the joints by applied forces; its position actuators would fight them.
    model.actuator_gainprm[:] = 0.0
    model.actuator_biasprm[:] = 0.0
    apply_lite_look(model)
    apply_config(model, config, ids.arm_dof)
    return ids


def compile_model(config: SceneConfig) -> tuple[mujoco.MjModel, SceneIds]:
    """Compile the cell without starting any server."""
    sim = MujocoSimulator()
    sim.init()
    sim.add_robot()
    add_scene(sim, config)
    model = mujoco.MjModel.from_xml_string(ET.tostring(sim.scene, encoding="unicode"))
    ids = finish_model(model, config)
    sim.cleanup()
    return model, ids
