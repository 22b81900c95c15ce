# SPDX-License-Identifier: Apache-2.0
"""One exception class per kind of mistake; every message names the fix or the offending field."""

from __future__ import annotations


class VlaRlError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(VlaRlError, ValueError):
    """A configuration value is missing, unknown, out of bounds or inconsistent."""


class InvalidCommandError(VlaRlError, ValueError):
    """A command or message was malformed and must be dropped as a whole.

    Attributes:
        reason: Short stable token for counters, e.g. ``not_finite`` or ``wrong_frame``.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        """Store the counter token and compose the sentence.

        Args:
            reason: Stable token, used as the key of a diagnostics counter.
            detail: What exactly was wrong, for the log.
        """
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class DeviceError(VlaRlError, RuntimeError):
    """A device could not be opened, stopped answering, or refused a request."""


class ArmFaultError(DeviceError):
    """The arm left control because of a reflex, a lost link or a refused command."""


class InferenceError(VlaRlError, RuntimeError):
    """A policy gave no usable answer this time; the caller holds and asks again."""


class SceneError(VlaRlError, RuntimeError):
    """The simulated scene refused or failed a request."""


class BagError(VlaRlError, RuntimeError):
    """A recording could not be written, read or repaired."""


class ReplayError(VlaRlError, RuntimeError):
    """Stored experience is damaged, in use elsewhere, or does not fit what is asked of it."""


class LearningError(VlaRlError, RuntimeError):
    """Gradient steps went wrong and the present weights are worth nothing."""
