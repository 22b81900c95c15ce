# SPDX-License-Identifier: Apache-2.0
"""What the operator's page shows, as JSON values; called by `operator_view`."""

from __future__ import annotations

from typing import Any

from vla_rl_ros.core.episode import EpisodeState
from vla_rl_ros.core.human_ledger import HumanTime
from vla_rl_ros.ros.channels import decode_channels
from vla_rl_ros.ros.codecs import SUCCESS_CHANNELS


def last_record(state: EpisodeState | None) -> dict[str, str] | None:
    """How the last episode went, None before its end."""
    if state is None or state.outcome is None:
        return None
    return {"id": state.episode_id, "outcome": state.outcome.value, "reason": state.reason}


def success_record(message: Any) -> dict[str, Any]:  # noqa: ANN401 - sensor_msgs/JointState
    """What a judge of success says; raises as `channels.decode_channels`."""
    channels = decode_channels(message, SUCCESS_CHANNELS)
    return {
        "probability": channels["success.probability"],
        "is_decided": channels["success.decided"] > 0.5,
        "model": message.header.frame_id,
    }


def human_record(time_: HumanTime | None) -> dict[str, Any] | None:
    """What people gave, None before the ledger was heard."""
    if time_ is None:
        return None
    return {
        "intervening_s": time_.intervening_s,
        "resetting_s": time_.resetting_s,
        "labelling_s": time_.labelling_s,
        "total_s": time_.total_s,
        "waiting_s": time_.waiting_s,
        "num_resets": time_.num_resets,
        "num_rolling": time_.num_rolling,
        **{
            name: {
                "ticks": count.ticks,
                "human_ticks": count.human_ticks,
                "interventions": count.interventions,
                "rate": count.rate,
            }
            for name, count in (
                ("session", time_.session),
                ("episode", time_.episode),
                ("rolling", time_.rolling),
            )
        },
    }


def rounded(seconds: float) -> float:
    """An age as the page shows it."""
    return round(seconds, 2)
