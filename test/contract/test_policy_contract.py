# SPDX-License-Identifier: Apache-2.0
"""The policy suite against every back end that can run here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from contract.openpi_server import ServerProcess
from contract.policy_suite import ENVIRONMENT, PolicySuite

from vla_rl_ros.policies.protocol import POLICY_MODULES, ChunkPolicy, PolicySettings, make_policy

Make = Callable[[], ChunkPolicy]

OPENPI = {
    "format": 1,
    "backend": "openpi",
    "control_period_s": 0.1,
    "horizon": 10,
    "cameras": ["front", "wrist"],
    "image_px": 32,
    "inputs": {
        "image": "camera.front",
        "wrist_image": "camera.wrist",
        "state": ["tcp.x_m", "tcp.y_m", "tcp.z_m"],
        "prompt": "instruction",
    },
    "action": {"codec": "delta_target"},
    "prefix": {"max_locked": 6, "conditioning": ["lock"]},
}


class _FromMake(PolicySuite):
    """A policy for every test."""

    @pytest.fixture
    def policy(self, make: Make) -> ChunkPolicy:
        return make()


class TestStill(_FromMake):
    has_state_checks = False

    @pytest.fixture
    def make(self) -> Make:
        return partial(make_policy, "still", PolicySettings(), ENVIRONMENT)

    # It looks at no pixel: cameras only have to be alive.
    test_a_bad_image_is_refused_and_the_next_one_answered = None


class TestScripted(_FromMake):
    most_repeated = 1

    @pytest.fixture
    def make(self) -> Make:
        return partial(make_policy, "scripted", PolicySettings(), ENVIRONMENT)


class TestOpenpi(_FromMake):
    @pytest.fixture(scope="class")
    def server(self, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
        pytest.importorskip("websockets")
        server = ServerProcess(tmp_path_factory.mktemp("openpi"))
        yield server
        server.stop()

    @pytest.fixture(params=["delta_target", "absolute", "relative"])
    def make(self, request: pytest.FixtureRequest, server: ServerProcess, tmp_path: Path) -> Make:
        path = tmp_path / "policy.json"
        path.write_text(json.dumps({**OPENPI, "action": {"codec": request.param}}))
        settings = PolicySettings(path=str(path), url=server.url)
        return partial(make_policy, "openpi", settings, ENVIRONMENT)


class TestLerobot(_FromMake):
    @pytest.fixture(params=[True, False], ids=["guided", "plain"])
    def make(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Make:
        pytest.importorskip("torch")
        from contract import lerobot_stub

        lerobot_stub.install(monkeypatch)
        directory = lerobot_stub.write(tmp_path / "policy", is_guided=request.param)
        settings = PolicySettings(path=str(directory))
        return partial(make_policy, "lerobot", settings, ENVIRONMENT)


class _MadeOnce(PolicySuite):
    """One policy for all tests, because making it takes seconds."""

    @pytest.fixture(scope="class")
    def policy(self, make: Make) -> ChunkPolicy:
        return make()


class TestPi0(_MadeOnce):
    @pytest.fixture(scope="class", params=["write_stock", "write_nano"])
    def make(
        self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Make:
        pytest.importorskip("transformers")
        from unit import pi0_checkpoints

        directory = getattr(pi0_checkpoints, request.param)(tmp_path_factory.mktemp("pi0"))
        return partial(make_policy, "pi0", pi0_checkpoints.settings(directory), ENVIRONMENT)


class TestShippedPi0(_MadeOnce):
    @pytest.fixture(scope="class")
    def make(self) -> Make:
        pytest.importorskip("transformers")
        return partial(make_policy, "pi0", PolicySettings(device="cpu"), ENVIRONMENT)


class TestByTask(_MadeOnce):
    """With a task that the script does not know, so that the weights answer."""

    @pytest.fixture(scope="class")
    def make(self) -> Make:
        pytest.importorskip("transformers")
        return partial(make_policy, "by_task", PolicySettings(device="cpu"), ENVIRONMENT)


class TestOnnx(_MadeOnce):
    @pytest.fixture(scope="class")
    def make(self, tmp_path_factory: pytest.TempPathFactory) -> Make:
        for name in ("transformers", "onnxruntime", "onnx"):
            pytest.importorskip(name)
        from unit import pi0_checkpoints

        from vla_rl_ros.tools.export import export_onnx

        directory = pi0_checkpoints.write_nano(tmp_path_factory.mktemp("nano"))
        file = tmp_path_factory.mktemp("onnx") / "model.onnx"
        export_onnx(directory, file, max_tokens=9)
        return partial(make_policy, "onnx", pi0_checkpoints.settings(file), ENVIRONMENT)


def test_every_back_end_is_held_to_the_suite() -> None:
    suites = {name.removeprefix("Test").lower() for name in globals() if name.startswith("Test")}
    assert {name.replace("_", "") for name in POLICY_MODULES} <= suites
