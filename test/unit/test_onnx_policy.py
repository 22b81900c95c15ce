# SPDX-License-Identifier: Apache-2.0
"""The exported file answers like torch, without torch; and the files that are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from unit.pi0_checkpoints import (
    CAMERAS,
    ENVIRONMENT,
    INSTRUCTION,
    change_json,
    observation,
    promise,
    settings,
    write_nano,
    write_stock,
)

from vla_rl_ros.core.errors import ConfigError, InvalidCommandError
from vla_rl_ros.core.prefix import Conditioning
from vla_rl_ros.policies.pi0.policy import CheckpointPolicy
from vla_rl_ros.policies.protocol import PolicyEnvironment, make_policy
from vla_rl_ros.tools.export import export_onnx

TOLERANCE = 1e-4
KINDS = {"stock": write_stock, "nano": write_nano}


@pytest.fixture(scope="module", params=list(KINDS))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """Checkpoint and exported file of each kind."""
    return _export(request.param, tmp_path_factory)


@pytest.fixture(scope="module")
def stock_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _export("stock", tmp_path_factory)[1]


def _export(kind: str, places: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = KINDS[kind](places.mktemp(kind))
    file = places.mktemp(f"{kind}_onnx") / "model.onnx"
    export_onnx(directory, file, max_tokens=9)
    return directory, file


def _policy(name: str, path: Path, **changes: object) -> CheckpointPolicy:
    policy = make_policy(name, settings(path, **changes), ENVIRONMENT)
    assert isinstance(policy, CheckpointPolicy)
    return policy


@pytest.mark.parametrize("num_locked", [0, 1, 5])
@pytest.mark.parametrize("instruction", [INSTRUCTION, "press the button"])
def test_it_answers_like_torch(pair: tuple[Path, Path], num_locked: int, instruction: str) -> None:
    torch_policy, onnx_policy = _policy("pi0", pair[0]), _policy("onnx", pair[1])
    prefix = promise(Conditioning.LOCK, num_locked=num_locked) if num_locked else None
    seen = observation(num_locked, instruction=instruction)
    wanted = torch_policy.sample(seen, prefix, num_samples=2)
    answer = onnx_policy.sample(seen, prefix, noise=wanted.noise)
    np.testing.assert_allclose(answer.actions, wanted.actions, atol=TOLERANCE)
    np.testing.assert_array_equal(answer.actions[:, :num_locked], wanted.actions[:, :num_locked])


def test_the_same_seed_draws_the_same_noise_as_torch(pair: tuple[Path, Path]) -> None:
    torch_policy, onnx_policy = _policy("pi0", pair[0], seed=3), _policy("onnx", pair[1], seed=3)
    for _ in range(2):
        np.testing.assert_allclose(
            onnx_policy.infer(observation(), None),
            torch_policy.infer(observation(), None),
            atol=TOLERANCE,
        )


def test_it_says_what_torch_says_except_for_guidance(pair: tuple[Path, Path]) -> None:
    torch_policy, onnx_policy = _policy("pi0", pair[0]), _policy("onnx", pair[1])
    for field in ("horizon", "cameras", "anchor", "max_locked", "needs_objects"):
        assert getattr(onnx_policy, field) == getattr(torch_policy, field)
    assert onnx_policy.conditionings == {Conditioning.NONE, Conditioning.LOCK}
    with pytest.raises(InvalidCommandError, match="'guide'"):
        onnx_policy.infer(observation(), promise(Conditioning.GUIDE, num_locked=1, num_rows=4))


def test_it_runs_without_torch_and_transformers(pair: tuple[Path, Path]) -> None:
    script = f"""
import sys

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("torch", "transformers", "onnx"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
import numpy as np
from vla_rl_ros.policies.protocol import (
    PolicyEnvironment, PolicyObservation, PolicySettings, make_policy,
)
policy = make_policy(
    "onnx", PolicySettings(path={str(pair[1])!r}), PolicyEnvironment(cameras={CAMERAS!r})
)
state = np.zeros(20)
state[6] = 1.0
images = {{name: np.zeros((128, 128, 3), np.uint8) for name in policy.cameras}}
seen = PolicyObservation(
    stamp_ns=0, images=images, state=state, instruction={INSTRUCTION!r}, task="lift"
)
assert policy.infer(seen, None).shape == (policy.horizon, 7)
"""
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, cwd=root)


def test_an_instruction_that_does_not_fit_is_refused(pair: tuple[Path, Path]) -> None:
    policy = _policy("onnx", pair[1])
    with pytest.raises(InvalidCommandError, match="--max-tokens"):
        policy.infer(observation(instruction=" ".join(["cube"] * 12)), None)


def test_manifest_and_tokenizer_lie_beside_the_file(pair: tuple[Path, Path]) -> None:
    directory, file = pair
    names = {path.name for path in file.parent.iterdir()}
    assert names == {"model.onnx", "policy.json", "tokenizer.json"}
    before = json.loads((directory / "policy.json").read_text())
    after = json.loads((file.parent / "policy.json").read_text())
    assert after == {**before, "backend": "onnx"}


def test_other_steps_are_exported_and_said(tmp_path: Path) -> None:
    directory = write_stock(tmp_path / "checkpoint")
    file = tmp_path / "out" / "model.onnx"
    export_onnx(directory, file, num_steps=2)
    noise = _policy("onnx", file).sample(observation()).noise
    wanted = _policy("pi0", directory, denoise_steps=2).sample(observation(), noise=noise)
    answer = _policy("onnx", file, denoise_steps=2).sample(observation(), noise=noise)
    np.testing.assert_allclose(answer.actions, wanted.actions, atol=TOLERANCE)
    with pytest.raises(ConfigError, match=r"settings\.denoise_steps=4.*exported with 2"):
        _policy("onnx", file, denoise_steps=4)


@pytest.fixture
def copy(stock_file: Path, tmp_path: Path) -> Path:
    """A file that may be damaged."""
    directory = tmp_path / "copy"
    shutil.copytree(stock_file.parent, directory)
    return directory / "model.onnx"


def test_a_missing_file_or_companion_is_named(copy: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.path='.*' is not a file"):
        _policy("onnx", copy.parent / "other.onnx")
    assert _policy("onnx", copy.parent).horizon > 0  # the folder will do if it holds one file
    (copy.parent / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json is missing"):
        _policy("onnx", copy)
    (copy.parent / "policy.json").unlink()
    with pytest.raises(ConfigError, match=r"policy\.json"):
        _policy("onnx", copy)


def test_a_damaged_file_is_refused(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:5000])
    with pytest.raises(ConfigError, match=r"model\.onnx cannot be loaded"):
        _policy("onnx", copy)


def test_a_file_of_something_else_is_refused(copy: Path) -> None:
    from onnx import TensorProto, helper, save

    sizes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", sizes[:1], sizes[1:])
    save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        str(copy),
    )
    with pytest.raises(ConfigError, match="has inputs x: not made by"):
        _policy("onnx", copy)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"backend": "pi0"}, "backend='pi0'"),
        ({"horizon": 9}, "horizon says 9"),
        ({"image_px": 56}, "image_px says 56"),
        ({"cameras": ["wrist"]}, "cameras has 1 names"),
        ({"control_period_s": 0.05}, "control_period_s"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    copy: Path, changes: dict[str, object], sentence: str
) -> None:
    change_json(copy.parent / "policy.json", **changes)
    with pytest.raises(ConfigError, match=sentence):
        _policy("onnx", copy)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dtype": "bfloat16"}, r"settings\.dtype"),
        ({"device": "cuda"}, r"settings\.device='cuda'"),
        ({"device": "tensorrt"}, r"settings\.device='tensorrt'"),
    ],
)
def test_settings_it_cannot_follow_are_refused(
    copy: Path, changes: dict[str, object], sentence: str
) -> None:
    import onnxruntime

    if str(changes.get("device")).upper() in str(onnxruntime.get_available_providers()).upper():
        pytest.skip("this machine has the device")
    with pytest.raises(ConfigError, match=sentence):
        _policy("onnx", copy, **changes)


def test_a_cell_without_its_cameras_is_refused(copy: Path) -> None:
    with pytest.raises(ConfigError, match="front"):
        make_policy("onnx", settings(copy), PolicyEnvironment(cameras=("wrist",)))
