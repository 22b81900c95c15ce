# SPDX-License-Identifier: Apache-2.0
"""Numbers of a command line; argparse refuses the others by the name of the option."""

from __future__ import annotations

import argparse
import math


def count(text: str) -> int:
    """How many, one at least."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def count_or_none(text: str) -> int:
    """How many, none is fine."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def positive(text: str) -> float:
    """A time or a rate."""
    value = float(text)
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError("must be finite and above 0")
    return value


def port(text: str) -> int:
    """A port to listen on, 0 for any."""
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError("must be within 0 and 65535")
    return value
