# SPDX-License-Identifier: Apache-2.0
"""A callback group that keeps its entities out of the executor's wait set until it is opened.

Waiting on an entity costs rclpy about 10 us of every cycle whether or not anything happens, and a
callback per message some 150 us. Entities that are polled elsewhere, or needed for a moment once
per episode, need not pay that.
"""

from __future__ import annotations

from rclpy.callback_groups import CallbackGroup


class GatedCallbackGroup(CallbackGroup):
    """Callbacks run only while `is_open`.

    Attributes:
        is_open: Whether the executor looks at the entities of the group; may change at any time.
    """

    def __init__(self, *, is_open: bool = False) -> None:
        """Create the group, closed unless told otherwise."""
        super().__init__()
        self.is_open = is_open

    def can_execute(self, entity: object) -> bool:
        """Asked by the executor for each entity in each cycle."""
        return self.is_open

    def beginning_execution(self, entity: object) -> bool:
        """Asked by the executor before a callback."""
        return True

    def ending_execution(self, entity: object) -> None:
        """Told by the executor after a callback."""
