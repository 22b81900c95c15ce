# SPDX-License-Identifier: Apache-2.0
"""Addresses of everything in the compiled scene, looked up by name once."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco

from vla_rl_ros.core.errors import SceneError

ROBOT_PREFIX = "robot0_"
FREE_BODIES = ("cube", "peg")
MOCAP_BODIES = ("button_base", "block", "wall")
CAMERAS = ("wrist", "front")


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneIds:
    """Addresses in the compiled model.

    Attributes:
        arm_qpos: Slice of `qpos` with the seven joint angles.
        arm_dof: Slice of `qvel` and of forces.
        finger_qpos: Slice of `qpos` with both fingers.
        finger_dof: Slice of `qvel` with both fingers.
        finger_joints: Joint ids of both fingers.
        tcp_site: Site id of the TCP.
        hand_body: Body id of the hand.
        bodies: Body id of ``cube``, ``button``, ``button_base``, ``block``, ``peg``, ``wall``.
        mocap: Mocap index of ``button_base``, ``block``, ``wall``.
        free_qpos: Slice of `qpos` of ``cube`` and ``peg``.
        free_dof: Slice of `qvel` of ``cube`` and ``peg``.
        button_qpos: Address of the button's travel.
        button_dof: Address of the button's velocity.
        peg_weld: Equality id, None where friction holds the peg.
        cameras: Camera id of ``wrist`` and ``front``.
    """

    arm_qpos: slice
    arm_dof: slice
    finger_qpos: slice
    finger_dof: slice
    finger_joints: tuple[int, int]
    tcp_site: int
    hand_body: int
    bodies: dict[str, int]
    mocap: dict[str, int]
    free_qpos: dict[str, slice]
    free_dof: dict[str, slice]
    button_qpos: int
    button_dof: int
    peg_weld: int | None
    cameras: dict[str, int]

    @classmethod
    def from_model(cls, model: mujoco.MjModel) -> SceneIds:
        """Look every name up once.

        Raises:
            SceneError: If the model was not built with `add_scene`.
        """
        try:
            return _look_up(model)
        except KeyError as error:
            raise SceneError(f"not a model of add_scene: {error}") from error


def _look_up(model: mujoco.MjModel) -> SceneIds:
    joint = {model.joint(i).name: model.joint(i) for i in range(model.njnt)}
    body = {model.body(i).name: i for i in range(model.nbody)}
    arm, finger = joint[f"{ROBOT_PREFIX}fr3_joint1"], joint[f"{ROBOT_PREFIX}finger_joint1"]
    free = {name: joint[name] for name in FREE_BODIES}
    weld = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_EQUALITY, "peg")
    return SceneIds(
        arm_qpos=_part(arm.qposadr[0], 7),
        arm_dof=_part(arm.dofadr[0], 7),
        finger_qpos=_part(finger.qposadr[0], 2),
        finger_dof=_part(finger.dofadr[0], 2),
        finger_joints=(finger.id, joint[f"{ROBOT_PREFIX}finger_joint2"].id),
        tcp_site=model.site("tcp").id,
        hand_body=body[f"{ROBOT_PREFIX}hand"],
        bodies={name: body[name] for name in (*FREE_BODIES, "button", *MOCAP_BODIES)},
        mocap={name: int(model.body_mocapid[body[name]]) for name in MOCAP_BODIES},
        free_qpos={name: _part(item.qposadr[0], 7) for name, item in free.items()},
        free_dof={name: _part(item.dofadr[0], 6) for name, item in free.items()},
        button_qpos=int(joint["button"].qposadr[0]),
        button_dof=int(joint["button"].dofadr[0]),
        peg_weld=None if weld < 0 else weld,
        cameras={name: model.camera(name).id for name in CAMERAS},
    )


def _part(start: int, length: int) -> slice:
    return slice(int(start), int(start) + length)
