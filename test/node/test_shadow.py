# SPDX-License-Identifier: Apache-2.0
"""Shadow mode with policy, actor and gate on a real graph: he drives, the policy is compared."""

from __future__ import annotations

import pytest
from node.cell_stub import HOME, CellStub
from node.policy_stub import PolicyStub
from rclpy.parameter import Parameter
from sensor_msgs.msg import Joy

from vla_rl_ros.core.episode import Phase
from vla_rl_ros.core.intervention import NO_STEP, ExecutedAction, Source
from vla_rl_ros.core.shadow import disagreement
from vla_rl_ros.core.spec import ActionSpec
from vla_rl_ros.core.teleop_config import AXES, BUTTONS
from vla_rl_ros.policies.protocol import POLICY_MODULES
from vla_rl_ros.ros.action_codecs import decode_executed, decode_policy_action
from vla_rl_ros.ros.channels import to_stamp
from vla_rl_ros.ros.codecs import decode_pose
from vla_rl_ros.ros.nodes.intervention import InterventionNode
from vla_rl_ros.ros.nodes.residual_actor import ResidualActorNode
from vla_rl_ros.ros.nodes.vla_inference import VlaInferenceNode

pytestmark = pytest.mark.ros


class Shadowed:
    """The three nodes that run in shadow mode, and a person at a joystick."""

    def __init__(self, executor) -> None:
        watched = ("action/executed", "policy/action", "arm/target_pose", "/diagnostics")
        self.cell = CellStub(executor, ())
        self.cell.cameras = {"wrist", "front"}
        self.gate = InterventionNode({"autostart": False, "device": "joy", "mode": "shadow"})
        self.actor = ResidualActorNode({"autostart": False, "shadow": True})
        self.vla = VlaInferenceNode(
            {"autostart": False, "shadow": True, "policy": "stub", "settings.horizon": 6}
        )
        for node in (self.vla, self.actor, self.gate):
            self.cell.bring_up(node)
        # Both leave the hand open.
        PolicyStub.newest.gripper = 1.0
        for name in watched:
            self.cell.listen(name)
        self.push = 0.0
        self.cell.create_timer(0.02, self._report)
        assert self.cell.until(
            lambda: all(self.cell.count_publishers(name) > 0 for name in (*watched, "teleop/joy"))
        )

    def _report(self) -> None:
        axes = [self.push if name == "x" else 0.0 for name in AXES]
        message = Joy(axes=axes, buttons=[0] * len(BUTTONS))
        message.header.stamp = to_stamp(self.cell.now_ns())
        self.cell.send("teleop/joy", message)

    def rows(self) -> list[ExecutedAction]:
        return [decode_executed(message) for message in self.cell.heard["action/executed"]]

    def compared(self) -> list[ExecutedAction]:
        return [row for row in self.rows() if row.chunk_step != NO_STEP]


@pytest.fixture
def shadowed(executor, monkeypatch):
    monkeypatch.setitem(POLICY_MODULES, "stub", "node.policy_stub")
    made = Shadowed(executor)
    yield made
    made.vla.trigger_shutdown()


def test_he_drives_while_policy_and_actor_go_on_and_what_they_differ_in_is_counted(
    shadowed, capfd
) -> None:
    cell, gate = shadowed.cell, shadowed.gate
    cell.enter(Phase.READY)
    assert cell.until(lambda: shadowed.actor.diag.counted("chunks.accepted") > 0)
    shadowed.push = -1.0
    cell.enter(Phase.RUNNING)
    assert cell.until(lambda: len(shadowed.compared()) > 8)

    # He drives every tick of his, and nobody else any.
    assert {row.source for row in shadowed.rows()} <= {Source.HUMAN, Source.HOLD}
    pose = decode_pose(cell.heard["arm/target_pose"][-1])
    assert pose.position_m[0] < HOME.position_m[0]
    # The policy looks at what he does, tick by tick, and is not begun anew by it.
    num_seen = len(PolicyStub.newest.seen)
    assert cell.until(lambda: len(PolicyStub.newest.seen) > num_seen + 3)
    assert PolicyStub.newest.prefixes[-1] is not None
    assert shadowed.vla.diag.counted("answers.before_takeover") == 0
    assert shadowed.actor.diag.counted("takeovers") == 0
    # What it proposed for a tick stands in the row of that tick.
    proposed = {
        action.stamp_ns: action
        for action in map(decode_policy_action, cell.heard["policy/action"])
    }
    for row in shadowed.compared():
        assert row.base.tobytes() == proposed[row.stamp_ns].base.tobytes()
        assert row.chunk_step == proposed[row.stamp_ns].chunk_step
    # Full speed against a policy that hardly moves.
    assert gate.diag.counted("disagreements") > 3
    assert gate.diag.counted("compared") >= gate.diag.counted("disagreements")
    apart = [disagreement(row, ActionSpec()) for row in shadowed.compared()]
    assert 0.5 < max(found for found in apart if found is not None) < 1.5
    assert "away from the operator" in "".join(capfd.readouterr())


def test_where_both_want_the_same_nothing_is_marked(shadowed) -> None:
    cell, gate = shadowed.cell, shadowed.gate
    cell.enter(Phase.READY)
    assert cell.until(lambda: shadowed.actor.diag.counted("chunks.accepted") > 0)
    # The stub of the arm does not follow, so what he asks for adds up to thrice his push at first.
    shadowed.push = 0.15
    cell.enter(Phase.RUNNING)
    assert cell.until(lambda: gate.diag.counted("compared") > 8)
    assert gate.diag.counted("disagreements") == 0
    # What counts as different is his to say, at once.
    gate.set_parameters([Parameter("disagreement", value=0.05)])
    assert cell.until(lambda: gate.diag.counted("disagreements") > 2)
