# SPDX-License-Identifier: Apache-2.0
"""Every topic of the graph as data: the recorder's list, the docs table and the graph test.

Imports nothing of ROS, so that tools and docs can read it anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

CAMERAS = ("wrist", "front")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One row of the topic table.

    Attributes:
        name: Relative topic name.
        type: ROS type, ``package/msg/Name``.
        qos: Name of the offered QoS in `ros/qos.py`.
        rate_hz: Nominal rate; 0 for on change.
        publisher: Node that publishes it, the only one.
        doc: What it carries.
    """

    name: str
    type: str
    qos: str
    rate_hz: float
    publisher: str
    doc: str


def _topic(name: str, kind: str, qos: str, rate_hz: float, publisher: str, doc: str) -> Topic:
    return Topic(name=name, type=kind, qos=qos, rate_hz=rate_hz, publisher=publisher, doc=doc)


def _camera_topics(camera: str) -> tuple[Topic, ...]:
    node, prefix = f"camera_{camera}", f"camera/{camera}"
    return (
        _topic(
            f"{prefix}/image",
            "sensor_msgs/msg/Image",
            "SENSOR",
            30,
            node,
            f"Colour image of the {camera} camera, stamped at exposure.",
        ),
        _topic(
            f"{prefix}/camera_info",
            "sensor_msgs/msg/CameraInfo",
            "LATCHED",
            0,
            node,
            f"Intrinsics of the {camera} camera.",
        ),
        _topic(
            f"{prefix}/depth",
            "sensor_msgs/msg/Image",
            "SENSOR",
            30,
            node,
            f"Depth of the {camera} camera in metres, aligned to its colour; off by default.",
        ),
    )


TOPICS: tuple[Topic, ...] = (
    *(topic for camera in CAMERAS for topic in _camera_topics(camera)),
    _topic(
        "arm/joint_state",
        "sensor_msgs/msg/JointState",
        "SENSOR",
        200,
        "proprio_driver",
        "Joint positions, velocities and torques.",
    ),
    _topic(
        "arm/tcp_pose",
        "geometry_msgs/msg/PoseStamped",
        "SENSOR",
        200,
        "proprio_driver",
        "Measured TCP pose in the base frame.",
    ),
    _topic(
        "arm/tcp_twist",
        "geometry_msgs/msg/TwistStamped",
        "SENSOR",
        200,
        "proprio_driver",
        "Measured TCP twist in the base frame.",
    ),
    _topic(
        "arm/tcp_wrench",
        "geometry_msgs/msg/WrenchStamped",
        "SENSOR",
        200,
        "proprio_driver",
        "External wrench estimate; positive when the robot pushes on its environment.",
    ),
    _topic(
        "gripper/state",
        "sensor_msgs/msg/JointState",
        "SENSOR",
        50,
        "proprio_driver",
        "Channels gripper.width_m, gripper.is_moving, gripper.is_grasped.",
    ),
    _topic(
        "arm/reference_pose",
        "geometry_msgs/msg/PoseStamped",
        "SENSOR",
        100,
        "impedance_controller",
        "The set point the Cartesian spring follows now.",
    ),
    _topic(
        "arm/controller_state",
        "sensor_msgs/msg/JointState",
        "EVENT",
        20,
        "impedance_controller",
        "Mode, target age, saturation and clip channels of the controller.",
    ),
    _topic(
        "policy/features",
        "sensor_msgs/msg/JointState",
        "EVENT",
        10,
        "vla_inference",
        "Image features of an inference, sent before its chunk with the same stamp; the frame is "
        "the hash of the vision tower. Empty for a policy without features.",
    ),
    _topic(
        "policy/chunk",
        "trajectory_msgs/msg/JointTrajectory",
        "EVENT",
        10,
        "vla_inference",
        "Action chunk; the stamp is the time of step 0, channels are named with units.",
    ),
    _topic(
        "policy/path",
        "nav_msgs/msg/Path",
        "EVENT",
        10,
        "vla_inference",
        "The chunk as TCP poses, for rviz.",
    ),
    _topic(
        "policy/observation",
        "sensor_msgs/msg/JointState",
        "DURABLE",
        10,
        "residual_actor",
        "What the actor saw at a tick, also while the arm holds or a human drives: state, phase "
        "of the chunk, features. The frame is the version of their meaning.",
    ),
    _topic(
        "policy/action",
        "sensor_msgs/msg/JointState",
        "COMMAND",
        10,
        "residual_actor",
        "base.* and residual.* channels, chunk id, step index, epoch and delay.",
    ),
    _topic(
        "teleop/joy",
        "sensor_msgs/msg/Joy",
        "SENSOR",
        100,
        "intervention",
        "Operator's device: x away from him, y left, z up and rotations, in [-1, 1] behind the "
        "dead zone; buttons gripper, success, failure, stop, mark. Only while it is touched.",
    ),
    _topic(
        "arm/target_pose",
        "geometry_msgs/msg/PoseStamped",
        "COMMAND",
        40,
        "intervention",
        "Absolute TCP target in the base frame; repeated between ticks as a heartbeat.",
    ),
    _topic(
        "gripper/target",
        "sensor_msgs/msg/JointState",
        "COMMAND",
        0,
        "intervention",
        "Channel gripper.width_m; 0 closes and grasps. On change, and repeated once per second.",
    ),
    _topic(
        "action/executed",
        "sensor_msgs/msg/JointState",
        "DURABLE",
        10,
        "intervention",
        "executed.*, base.*, residual.* and one-hot source.vla/residual/human/hold channels.",
    ),
    _topic(
        "task/success",
        "sensor_msgs/msg/JointState",
        "EVENT",
        10,
        "success_classifier",
        "Channels success.probability and success.decided.",
    ),
    _topic(
        "episode/state",
        "diagnostic_msgs/msg/DiagnosticArray",
        "LATCHED",
        5,
        "supervisor",
        "Phase, id, epoch, task, instruction, outcome and who judged it; on change and as a "
        "heartbeat.",
    ),
    _topic(
        "episode/outcome",
        "diagnostic_msgs/msg/DiagnosticArray",
        "DURABLE",
        0,
        "supervisor",
        "`episode/state` once more at the end of each episode, for who missed it.",
    ),
    _topic(
        "human/ledger",
        "sensor_msgs/msg/JointState",
        "LATCHED",
        5,
        "supervisor",
        "Human time by kind, and ticks, human ticks, interventions and their rate of the session, "
        "the newest episode and the last few; on change and as a heartbeat.",
    ),
    _topic(
        "learner/actor",
        "std_msgs/msg/UInt8MultiArray",
        "LATCHED",
        0.5,
        "learner",
        "Actor weights as safetensors bytes, versioned and hashed.",
    ),
    _topic(
        "learner/metrics",
        "sensor_msgs/msg/JointState",
        "EVENT",
        0.5,
        "learner",
        "Named training metrics.",
    ),
    _topic(
        "sim/objects",
        "sensor_msgs/msg/MultiDOFJointState",
        "SENSOR",
        50,
        "sim_cell",
        "Simulation only: true object poses, read by the scripted policy and by nobody else.",
    ),
    _topic(
        "sim/success",
        "sensor_msgs/msg/JointState",
        "EVENT",
        10,
        "sim_cell",
        "Simulation only: success decided from the simulator's state, for evaluation.",
    ),
    _topic(
        "viz/markers",
        "visualization_msgs/msg/MarkerArray",
        "EVENT",
        5,
        "supervisor",
        "Workspace box, clip box, target, who drives and episode text, for rviz.",
    ),
    _topic(
        "/diagnostics",
        "diagnostic_msgs/msg/DiagnosticArray",
        "EVENT",
        1,
        "all",
        "Health, rates, ages, latencies and counters of every node.",
    ),
)
TOPIC_BY_NAME = {topic.name: topic for topic in TOPICS}
