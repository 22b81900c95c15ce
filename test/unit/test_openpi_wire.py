# SPDX-License-Identifier: Apache-2.0
"""The bytes of openpi's protocol, against an encoder that shares no code with ours."""

from __future__ import annotations

import contextlib

import msgpack
import numpy as np
import pytest
from contract.openpi_server import pack_array, unpack_array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vla_rl_ros.policies.openpi_wire import pack, unpack

DTYPES = st.sampled_from(["<f4", "<f8", "<f2", "|u1", "<i8", "<i4", "|b1", ">f4"])


@given(arrays.arrays(DTYPES.map(np.dtype), arrays.array_shapes(min_dims=0, min_side=0)))
def test_arrays_come_back_equal(array: np.ndarray) -> None:
    theirs = msgpack.unpackb(pack({"a": array}), object_hook=unpack_array)["a"]
    ours = unpack(msgpack.packb({"a": pack_array(array)}))["a"]
    for found in (theirs, ours):
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        assert found.tobytes() == array.tobytes()


def test_views_texts_scalars_and_nesting_survive() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)[::2, ::-1]
    message = {"o": {"image": image, "n": [1, "ä", None, 2.5]}, "s": np.float32(1.5)}
    back = unpack(pack(message))
    assert np.array_equal(back["o"]["image"], image)
    assert back["o"]["n"] == [1, "ä", None, 2.5]
    assert back["s"] == np.float32(1.5)
    assert back["s"].dtype == np.float32


@pytest.mark.parametrize(
    "array", [np.array([{}]), np.array([1j]), np.zeros(2, dtype=[("a", "f4")]), np.array(["a"])]
)
def test_objects_are_never_sent(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="cannot be sent"):
        pack({"a": array})
    with pytest.raises(TypeError, match="cannot be sent"):
        pack({"a": object()})


GOOD = {b"__ndarray__": True, b"data": b"\0" * 8, b"dtype": "<f4", b"shape": [2]}


@pytest.mark.parametrize(
    "changes",
    [
        {b"dtype": "|O"},
        {b"dtype": "O8"},
        {b"dtype": "<c8"},
        {b"dtype": "f4,f4"},
        {b"dtype": "nonsense"},
        {b"dtype": 4},
        {b"data": "text"},
        {b"data": b"\0" * 7},
        {b"shape": [3]},
        {b"shape": [-2]},
        {b"shape": [2**62, 4]},
        {b"shape": [True, 2]},
        {b"shape": 2},
        {b"shape": [1] * 40},
    ],
)
def test_arrays_that_contradict_themselves_are_refused(changes: dict[bytes, object]) -> None:
    assert np.array_equal(unpack(msgpack.packb({"a": GOOD}))["a"], [0.0, 0.0])
    with pytest.raises(ValueError, match="array"):
        unpack(msgpack.packb({"a": {**GOOD, **changes}}))


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_raise(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        unpack(data)
