# SPDX-License-Identifier: Apache-2.0
"""The encoder that keeps where things are."""

from __future__ import annotations

import pytest
import torch

from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.conv_blocks import ENCODED_WIDTH
from vla_rl_ros.learning.keypoint_net import KeypointNet

SIDE = 16


def spot(x: float, y: float) -> torch.Tensor:
    """Heat of a spot, from the left and from the top, in cells; shape (1, 1, 16, 16)."""
    cells = torch.arange(float(SIDE))
    return -((cells[None, :] - x) ** 2 + (cells[:, None] - y) ** 2)[None, None]


def test_a_point_moves_with_what_it_marks_by_a_part_of_a_cell():
    net = KeypointNet(4 * SIDE)
    cell = 2.0 / (SIDE - 1)
    for x, y in ((7.0, 4.0), (7.25, 4.0), (7.0, 4.5), (9.5, 10.75)):
        (point,) = net.centres(spot(x, y))[0].tolist()
        assert point == pytest.approx([x * cell - 1.0, y * cell - 1.0], abs=0.01 * cell)


def test_images_that_differ_by_a_shift_are_told_apart():
    torch.manual_seed(0)
    net = KeypointNet(64)
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 20:24, 30:34] = images[1, :, 20:24, 31:35] = 1.0
    features = net(images)
    assert features.shape == (2, ENCODED_WIDTH)
    assert not torch.allclose(*features)


def test_a_side_that_cannot_be_halved_four_times_is_refused():
    with pytest.raises(ConfigError, match="image_px=40 is no multiple of 16"):
        KeypointNet(40)
