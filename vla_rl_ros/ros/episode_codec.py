# SPDX-License-Identifier: Apache-2.0
"""The state of an episode as key-value pairs and back.

Owns the layout of ``episode/state``: the supervisor encodes; the gate, the recorder, the learner's
session and whoever shows or audits episodes decode, from the graph or from a bag.
"""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from vla_rl_ros.core.episode import EpisodeState, Outcome, Phase, ResetKind
from vla_rl_ros.core.errors import InvalidCommandError
from vla_rl_ros.ros.channels import to_stamp


def encode_episode(state: EpisodeState, stamp_ns: int) -> DiagnosticArray:
    """Episode state as key-value pairs of one status named ``episode``."""
    values = {
        "phase": state.phase.value,
        "id": state.episode_id,
        "epoch": str(state.epoch),
        "task": state.task,
        "instruction": state.instruction,
        "seed": str(state.seed),
        "reset": state.reset.value if state.reset else "",
        "outcome": state.outcome.value if state.outcome else "",
        "judge": state.judge,
        "reason": state.reason,
        "waiting": str(int(state.is_waiting)),
    }
    is_fault = state.phase is Phase.FAULT
    status = DiagnosticStatus(
        level=DiagnosticStatus.ERROR if is_fault else DiagnosticStatus.OK,
        name="episode",
        message=state.reason or state.phase.value,
        hardware_id="vla_rl_ros",
        values=[KeyValue(key=key, value=value) for key, value in values.items()],
    )
    message = DiagnosticArray(status=[status])
    message.header.stamp = to_stamp(stamp_ns)
    return message


def decode_episode(message: DiagnosticArray) -> EpisodeState:
    """Inverse of `encode_episode`.

    Raises:
        InvalidCommandError: ``missing_channel`` or ``bad_value``.
    """
    if len(message.status) != 1:
        raise InvalidCommandError("wrong_length", f"{len(message.status)} statuses")
    values = {pair.key: pair.value for pair in message.status[0].values}
    # Older bags name neither who reset the scene nor who judged.
    reset = values.get("reset", "")
    try:
        return EpisodeState(
            phase=Phase(values["phase"]),
            episode_id=values["id"],
            epoch=int(values["epoch"]),
            task=values["task"],
            instruction=values["instruction"],
            seed=int(values["seed"]),
            reset=ResetKind(reset) if reset else None,
            outcome=Outcome(values["outcome"]) if values["outcome"] else None,
            judge=values.get("judge", ""),
            reason=values["reason"],
            is_waiting=values.get("waiting") == "1",
        )
    except KeyError as error:
        raise InvalidCommandError("missing_channel", str(error)) from error
    except ValueError as error:
        raise InvalidCommandError("bad_value", str(error)) from error
