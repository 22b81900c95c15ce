# SPDX-License-Identifier: Apache-2.0
"""Bytes of openpi's policy server: MessagePack with arrays as maps, never pickle.

An array is the map ``{b"__ndarray__": True, b"data", b"dtype", b"shape"}``, a numpy scalar
``{b"__npgeneric__": True, b"data", b"dtype"}``. What comes in is checked before memory is taken.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgpack
import numpy as np

_PLAIN_KINDS = "biuf"
"""Booleans, integers, floats: no objects, no records, no text."""
_MAX_DIMENSIONS = 8


def pack(message: Mapping[str, object]) -> bytes:
    """Serialise a message of numbers, texts, lists, maps and numpy arrays.

    Raises:
        ValueError: An array of objects, records or complex numbers.
        TypeError: Something else that has no form in MessagePack.
    """
    packed: bytes = msgpack.packb(message, default=_pack_array)
    return packed


def unpack(data: bytes) -> object:
    """Read a message; arrays come back read-only.

    Raises:
        ValueError: The bytes are no MessagePack or hold an array that contradicts itself.
    """
    try:
        return msgpack.unpackb(data, object_hook=_unpack_array)
    except msgpack.exceptions.UnpackException as error:
        raise ValueError(f"no MessagePack: {error or type(error).__name__}") from error


def _pack_array(value: object) -> object:
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{type(value).__name__} cannot be sent")
    if value.dtype.kind not in _PLAIN_KINDS:
        raise ValueError(f"arrays of {value.dtype} cannot be sent")
    if isinstance(value, np.ndarray):
        return {
            b"__ndarray__": True,
            b"data": value.tobytes(),
            b"dtype": value.dtype.str,
            b"shape": value.shape,
        }
    return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}


def _unpack_array(value: dict[object, object]) -> object:
    if b"__ndarray__" in value:
        return _array(value)
    if b"__npgeneric__" in value:
        data = value.get(b"data")
        if not isinstance(data, (bool, int, float)):
            raise ValueError(f"a scalar holds {type(data).__name__}")
        return _dtype(value.get(b"dtype")).type(data)
    return value


def _array(value: dict[object, object]) -> np.ndarray:
    data, shape = value.get(b"data"), value.get(b"shape")
    dtype = _dtype(value.get(b"dtype"))
    if not isinstance(data, bytes) or not isinstance(shape, list):
        raise ValueError("an array lacks data or shape")
    if len(shape) > _MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array has the shape {shape!r}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} and type {dtype} has {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _dtype(name: object) -> np.dtype:
    if not isinstance(name, str):
        raise ValueError(f"an array has the type {name!r}")
    try:
        dtype = np.dtype(name)
    except TypeError as error:
        raise ValueError(f"an array has the type {name!r}") from error
    if dtype.kind not in _PLAIN_KINDS:
        raise ValueError(f"arrays of {dtype} are not accepted")
    return dtype
