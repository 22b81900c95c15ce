# SPDX-License-Identifier: Apache-2.0
"""Launch files against stand-ins of `launch` and `launch_ros`: the same graph as the runner's."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import yaml

from vla_rl_ros.ros.graph_options import Backend, GraphOptions
from vla_rl_ros.ros.processes import LEARNER_SAVE_S, ProcessSpec, build_graph, parameter_file

ROOT = Path(__file__).resolve().parents[2]
FILES = {"sim": Backend.SIM, "bringup": Backend.REAL}
ROBOT_IP = {"sim": "127.0.0.1", "bringup": "172.16.0.2"}


class Action:
    """Remembers how it was made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class DeclareLaunchArgument(Action):
    pass


class OpaqueFunction(Action):
    pass


class SetEnvironmentVariable(Action):
    pass


class ExecuteProcess(Action):
    pass


class Shutdown(Action):
    pass


class Node(Action):
    pass


class LaunchDescription:
    def __init__(self, entities: list[Action]) -> None:
        self.entities = entities


class LaunchConfiguration:
    def __init__(self, name: str) -> None:
        self._name = name

    def perform(self, context: dict[str, str]) -> str:
        return context[self._name]


def module(name: str, **contents: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    vars(made).update(contents)
    return made


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    actions = [DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable, ExecuteProcess]
    modules = [
        module("launch", LaunchContext=dict, LaunchDescription=LaunchDescription),
        module("launch.actions", **{a.__name__: a for a in [*actions, Shutdown]}),
        module("launch.substitutions", LaunchConfiguration=LaunchConfiguration),
        module("launch_ros"),
        module("launch_ros.actions", Node=Node),
    ]
    for made in modules:
        monkeypatch.setitem(sys.modules, made.__name__, made)
    # Made from the stand-ins, so it must not stay for other tests.
    monkeypatch.delitem(sys.modules, "vla_rl_ros.tools.launching", raising=False)
    yield
    sys.modules.pop("vla_rl_ros.tools.launching", None)


def description(name: str) -> LaunchDescription:
    path = ROOT / "launch" / f"{name}.launch.py"
    spec = importlib.util.spec_from_file_location(f"{name}_launch", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded.generate_launch_description()


def declared(name: str) -> dict[str, DeclareLaunchArgument]:
    entities = description(name).entities
    return {e.args[0]: e for e in entities if isinstance(e, DeclareLaunchArgument)}


def launched(name: str, out: Path, **changes: str) -> list[Action]:
    values = {key: e.kwargs.get("default_value", "") for key, e in declared(name).items()}
    values |= {"robot_ip": ROBOT_IP[name], "out": str(out), **changes}
    (opaque,) = [e for e in description(name).entities if isinstance(e, OpaqueFunction)]
    return opaque.kwargs["function"](values)


def own(actions: list[Action]) -> dict[str, Action]:
    """Our processes by name."""
    nodes = [a for a in actions if isinstance(a, Node) and a.kwargs["package"] == "vla_rl_ros"]
    named = {a.kwargs.get("name", a.kwargs["executable"]): a for a in nodes}
    plain = [a for a in actions if isinstance(a, ExecuteProcess)]
    return {**named, **{a.kwargs["name"]: a for a in plain}}


def expected(name: str, out: Path) -> dict[str, ProcessSpec]:
    options = GraphOptions(backend=FILES[name], robot_ip=ROBOT_IP[name], out=out)
    return {spec.name: spec for spec in build_graph(options)}


pytestmark = pytest.mark.usefixtures("stand_ins")
BOTH = pytest.mark.parametrize("name", list(FILES))


@BOTH
def test_every_process_is_launched_with_the_runners_parameters(name: str, tmp_path: Path) -> None:
    actions, specs = own(launched(name, tmp_path)), expected(name, tmp_path)
    assert set(actions) == set(specs)
    for process, spec in specs.items():
        kwargs = actions[process].kwargs
        assert kwargs["respawn"] == spec.respawn
        assert ("on_exit" in kwargs) == spec.critical
        if spec.is_ros:
            (path,) = kwargs["parameters"]
            assert yaml.safe_load(Path(path).read_text()) == parameter_file(spec)
            assert kwargs["executable"] == spec.executable
        else:
            assert kwargs["cmd"][1:] == ["-m", spec.module, *spec.arguments]


def test_ros_launch_too_waits_for_a_learner_that_saves(tmp_path: Path) -> None:
    actions = own(launched("sim", tmp_path, learner=str(tmp_path / "run")))
    assert float(actions["learner"].kwargs["sigkill_timeout"]) == LEARNER_SAVE_S
    assert "sigkill_timeout" not in actions["recorder"].kwargs


@BOTH
def test_the_two_nodes_of_the_arm_keep_their_names(name: str, tmp_path: Path) -> None:
    actions = own(launched(name, tmp_path))
    assert "name" not in actions["arm"].kwargs
    assert actions["camera_front"].kwargs["name"] == "camera_front"


@BOTH
def test_the_environment_is_set_before_the_first_process(name: str, tmp_path: Path) -> None:
    actions = launched(name, tmp_path)
    variables = [a.args[0] for a in actions if isinstance(a, SetEnvironmentVariable)]
    assert {"FASTDDS_DEFAULT_PROFILES_FILE", "VLA_RL_RUN_DIR"} <= set(variables)
    assert "ROS_AUTOMATIC_DISCOVERY_RANGE" in variables
    assert all(isinstance(a, SetEnvironmentVariable) for a in actions[: len(variables)])


@BOTH
def test_executables_of_other_packages_are_started_only_on_demand(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urdf = module("vla_rl_ros.tools.urdf", robot_description=lambda: "<robot/>")
    monkeypatch.setitem(sys.modules, "vla_rl_ros.tools.urdf", urdf)

    def foreign(**changes: str) -> set[str]:
        nodes = [a for a in launched(name, tmp_path, **changes) if isinstance(a, Node)]
        return {a.kwargs["package"] for a in nodes} - {"vla_rl_ros"}

    assert foreign() == set()
    wanted = {"rviz": "true", "robot_state_publisher": "true", "world_frame": "map"}
    assert foreign(**wanted) == {
        "rviz2",
        "robot_state_publisher",
        "joint_state_publisher",
        "tf2_ros",
    }


def test_the_real_cell_needs_its_address_and_the_simulated_one_has_one() -> None:
    assert "default_value" not in declared("bringup")["robot_ip"].kwargs
    assert "default_value" in declared("sim")["robot_ip"].kwargs
    assert "variant" not in declared("bringup")


@BOTH
def test_every_argument_is_explained_and_changes_the_graph(name: str, tmp_path: Path) -> None:
    assert all(e.kwargs["description"] for e in declared(name).values())
    actions = own(launched(name, tmp_path, record="false", task="peg", seed="5", episodes="2"))
    assert "recorder" not in actions
    path = Path(actions["supervisor"].kwargs["parameters"][0])
    parameters = yaml.safe_load(path.read_text())["supervisor"]["ros__parameters"]
    assert (parameters["task"], parameters["seed"]) == ("peg", 5)
    assert parameters["autorun_episodes"] == 2


def test_a_site_file_reaches_the_nodes(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("camera_front: {ros__parameters: {serial: '77'}}\n")
    actions = own(launched("bringup", tmp_path, site=str(site)))
    path = Path(actions["camera_front"].kwargs["parameters"][0])
    assert yaml.safe_load(path.read_text())["camera_front"]["ros__parameters"]["serial"] == "77"
