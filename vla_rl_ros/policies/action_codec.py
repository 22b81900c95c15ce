# SPDX-License-Identifier: Apache-2.0
"""Between the rows of a model's answer and the increments the runtime executes.

The increments of every codec are the steps of a path of target poses. Where a prefix is promised,
the path goes on from where the prefix leads to, so that what is executed meets the poses the model
meant, whatever was promised on the way. Made and called by the back ends.
"""

from __future__ import annotations

import numpy as np

from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.core.intervention import Anchor
from vla_rl_ros.core.kinematics import (
    NUM_JOINTS,
    flange_matrix,
    matrix_path,
    pose_matrix,
    solve_joints,
)
from vla_rl_ros.core.prefix import Conditioning, Prefix
from vla_rl_ros.core.spec import ACTION_DIM, GRIPPER_INDEX, STATE_DIM
from vla_rl_ros.core.types import FloatArray, Pose, finite_array
from vla_rl_ros.policies.manifest import JOINT_CODECS, ActionSection
from vla_rl_ros.policies.pose_path import (
    PosePath,
    read_rotation,
    steps_between,
    walk,
    walk_inside,
    write_rotation,
)
from vla_rl_ros.policies.protocol import PolicyObservation

_DELTAS = frozenset({"delta_measured", "delta_target"})
_INCREMENTS = _DELTAS | {"joint_delta"}
_ADDED_TO_MEASURED = frozenset({"delta_measured", "joint_delta"})


class ActionCodec:
    """Translates between one model's action space and SI increments.

    SI rows have the channels of `core.spec.ACTION_CHANNELS`; the gate adds row i to the measured
    pose or to the last target at tick i, as `anchor` says.
    """

    def __init__(self, section: ActionSection) -> None:
        """Fix the meaning of the model's numbers.

        Args:
            section: The part ``action`` of the manifest.
        """
        self._section = section
        self._mean, self._std = np.array(section.mean), np.array(section.std)

    @property
    def dim(self) -> int:
        """Numbers per row of the model: 7, 10 with two axes of the rotation, 8 with joints."""
        return self._section.dim

    @property
    def anchor(self) -> Anchor:
        """What the gate has to add the increments to."""
        is_measured = self._section.codec in _ADDED_TO_MEASURED
        return Anchor.MEASURED if is_measured else Anchor.LAST_TARGET

    @property
    def needs_joints(self) -> bool:
        """Whether observations must carry joint angles."""
        return self._section.codec in JOINT_CODECS

    def check(self, observation: PolicyObservation) -> None:
        """Refuse an observation before it costs an inference.

        Raises:
            InvalidCommandError: Actions cannot be anchored to it: the state is malformed, or
                joint angles are missing.
        """
        self._start(observation)
        if self.needs_joints:
            _joints(observation)

    def decode(
        self,
        model_actions: FloatArray,
        observation: PolicyObservation,
        prefix: Prefix | None = None,
    ) -> FloatArray:
        """Turn an answer of the model into increments.

        Args:
            model_actions: Rows of the model, normalised, shape (H, dim).
            observation: What the model saw; poses are anchored to it.
            prefix: What is promised. Locked rows come back unchanged, and the rows after them
                go on from the pose they lead to. For poses that holds even where the model was
                not conditioned on the prefix, because row 0 carries the way from the last
                target to the first pose and would be lost with what is overwritten.

        Returns:
            SI increments, shape (H, 7).

        Raises:
            InvalidCommandError: Wrong shape, not finite, no rotation, or missing joint angles.
        """
        horizon = len(model_actions)
        rows = finite_array(model_actions, (horizon, self.dim), "the model's answer")
        rows = rows * self._std + self._mean
        locked = self._locked(prefix)[:horizon]
        num_locked = len(locked)
        actions = np.zeros((horizon, ACTION_DIM))
        actions[:num_locked] = locked
        promised = walk(self._start(observation), actions[:num_locked, :GRIPPER_INDEX])
        free = rows[num_locked:]
        steps = self._steps(free[:, :-1], promised, observation)
        actions[num_locked:, :GRIPPER_INDEX] = steps
        actions[num_locked:, GRIPPER_INDEX] = self._open_fraction(free[:, -1])
        return actions

    def encode(self, si_actions: FloatArray, observation: PolicyObservation) -> FloatArray:
        """Turn increments into rows of the model, for promised and guiding prefixes.

        Args:
            si_actions: Increments from element 0 on, shape (n, 7).
            observation: What the model sees now; poses are re-anchored to it.

        Returns:
            Normalised rows of the model, shape (n, dim).

        Raises:
            InvalidCommandError: Wrong shape, not finite, out of reach, or missing joint angles.
        """
        # Copied, because scipy refuses to rotate read-only arrays.
        actions = finite_array(si_actions, (len(si_actions), ACTION_DIM), "actions").copy()
        path = walk(self._start(observation), actions[:, :GRIPPER_INDEX])
        section = self._section
        travel = section.gripper_open - section.gripper_closed
        gripper = section.gripper_closed + travel * actions[:, GRIPPER_INDEX:]
        rows = np.concatenate([self._rows(path, actions, observation), gripper], axis=1)
        normalised: FloatArray = (rows - self._mean) / self._std
        return normalised

    def _locked(self, prefix: Prefix | None) -> FloatArray:
        """Rows of a prefix that replace the model's, shape (d, 7)."""
        is_increment = self._section.codec in _INCREMENTS
        if prefix is None or (is_increment and prefix.conditioning is not Conditioning.LOCK):
            return np.zeros((0, ACTION_DIM))
        return prefix.actions[: prefix.num_locked]

    def _start(self, observation: PolicyObservation) -> Pose:
        """Pose that element 0 is added to."""
        if self.anchor is Anchor.LAST_TARGET and observation.target is not None:
            return observation.target
        return _measured(observation)

    def _steps(
        self, rows: FloatArray, promised: PosePath, observation: PolicyObservation
    ) -> FloatArray:
        """Increments, (n, 6), that physical rows without gripper mean after what is promised."""
        section, start = self._section, promised.pose(-1)
        if section.codec not in _DELTAS:
            path = self._path(rows, promised, observation)
            return steps_between(path.after(start))
        turns = read_rotation(rows[:, 3:], section.rotation)
        if section.frame == "tcp":
            return walk_inside(start, rows[:, :3], turns)
        return np.concatenate([rows[:, :3], turns.as_rotvec()], axis=1)

    def _path(
        self, rows: FloatArray, promised: PosePath, observation: PolicyObservation
    ) -> PosePath:
        """Poses that physical rows without gripper mean."""
        section = self._section
        if section.codec in JOINT_CODECS:
            tool = _joints(observation)[1]
            if section.codec == "joint_delta":
                rows = _joint_path(promised, observation)[-1] + np.cumsum(rows, axis=0)
            return PosePath(*matrix_path(flange_matrix(rows) @ tool))
        turns = read_rotation(rows[:, 3:], section.rotation)
        if section.codec == "absolute":
            return PosePath(rows[:, :3], turns)
        origin = walk(_measured(observation), np.zeros((0, 6)))
        if section.frame == "base":
            return PosePath(origin.position_m + rows[:, :3], turns * origin.rotation)
        return PosePath(
            origin.position_m + origin.rotation.apply(rows[:, :3]), origin.rotation * turns
        )

    def _rows(
        self, path: PosePath, actions: FloatArray, observation: PolicyObservation
    ) -> FloatArray:
        """Inverse of `_steps`: what the n poses after the first of `path` are to the model."""
        section = self._section
        if section.codec in JOINT_CODECS:
            joint_rad = _joint_path(path, observation)
            return np.diff(joint_rad, axis=0) if section.codec == "joint_delta" else joint_rad[1:]
        if section.codec in _DELTAS:
            steps = actions[:, :GRIPPER_INDEX].reshape(-1, 2, 3)
            if section.frame == "tcp":
                inward = path.rotation[:-1].inv()
                steps = np.stack([inward.apply(steps[:, i]) for i in range(2)], axis=1)
            position_m, turns = steps[:, 0], read_rotation(steps[:, 1], "rotvec")
        else:
            position_m, turns = path.tail()
            if section.codec == "relative":
                position_m, turns = self._from_origin(path.tail(), observation)
        return np.concatenate([position_m, write_rotation(turns, section.rotation)], axis=1)

    def _from_origin(self, path: PosePath, observation: PolicyObservation) -> PosePath:
        origin = walk(_measured(observation), np.zeros((0, 6)))
        offset_m, inward = path.position_m - origin.position_m, origin.rotation.inv()
        if self._section.frame == "base":
            return PosePath(offset_m, path.rotation * inward)
        return PosePath(inward.apply(offset_m), inward * path.rotation)

    def _open_fraction(self, values: FloatArray) -> FloatArray:
        section = self._section
        travel = section.gripper_open - section.gripper_closed
        fraction = np.clip((values - section.gripper_closed) / travel, 0.0, 1.0)
        return np.where(fraction >= 0.5, 1.0, 0.0) if section.gripper == "binary" else fraction


def _measured(observation: PolicyObservation) -> Pose:
    state = finite_array(observation.state, (STATE_DIM,), "state")
    return Pose(state[:3], state[3:7])


def _joints(observation: PolicyObservation) -> tuple[FloatArray, FloatArray]:
    """Measured joint angles (7,), and the tool that makes them meet the measured TCP, (4, 4).

    Taking the tool from the observation keeps the arm from jumping by the difference between the
    TCP the robot is set to and the one of the stock hand.
    """
    if observation.joint_rad is None:
        raise InvalidCommandError("missing_joints", "the policy acts on joint angles")
    joint_rad = finite_array(observation.joint_rad, (NUM_JOINTS,), "joint_rad")
    flange = flange_matrix(joint_rad)
    return joint_rad, np.linalg.inv(flange) @ pose_matrix(_measured(observation))


def _joint_path(path: PosePath, observation: PolicyObservation) -> FloatArray:
    """Joint angles along a path, each nearest to the one before, shape (n, 7)."""
    joint_rad, tool = _joints(observation)
    solved = []
    for i in range(len(path.position_m)):
        joint_rad = solve_joints(path.pose(i), joint_rad, tool)
        solved.append(joint_rad)
    return np.array(solved)
