# SPDX-License-Identifier: Apache-2.0
"""The one description of the processes: complete, in order, with parameters that exist."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import yaml
from node.weights_stub import made_weights

from vla_rl_ros.core.episode import TaskConfig
from vla_rl_ros.core.errors import ConfigError
from vla_rl_ros.learning.actor_bytes import write_actor
from vla_rl_ros.policies.goal_eyes import EyesManifest, write_manifest
from vla_rl_ros.policies.pi0.backend import SHIPPED
from vla_rl_ros.ros.graph import TOPICS
from vla_rl_ros.ros.graph_options import Backend, GraphOptions, read_site
from vla_rl_ros.ros.graph_parameters import MANAGED_NODES
from vla_rl_ros.ros.processes import (
    StopStage,
    build_graph,
    graph_environment,
    parameter_file,
    ros_arguments,
)
from vla_rl_ros.ros.share import known_tasks, read_config, read_task, share_path

ROOT = Path(__file__).resolve().parents[2]
EVERY_BACKEND = pytest.mark.parametrize("backend", list(Backend))


def graph(**changes: object):
    return build_graph(GraphOptions(**changes))


def names(specs) -> list[str]:
    return [spec.name for spec in specs]


@EVERY_BACKEND
def test_every_publisher_of_the_topic_table_runs(backend: Backend) -> None:
    nodes = {node for spec in graph(backend=backend) for node in spec.nodes}
    absent = {topic.publisher for topic in TOPICS} - nodes - {"all"}
    # Not built yet, or only there where there is something to simulate.
    learners = {"success_classifier", "learner"}
    assert absent - learners == ({"sim_cell"} if backend is not Backend.SIM else set())


@EVERY_BACKEND
def test_the_supervisor_brings_up_what_runs_and_nothing_else(backend: Backend) -> None:
    specs = graph(backend=backend)
    managed = next(s for s in specs if s.name == "supervisor").parameters["supervisor"]
    running = {node for spec in specs for node in spec.nodes} - {"supervisor"}
    assert set(managed["managed_nodes"]) == running
    assert managed["managed_nodes"] == [n for n in MANAGED_NODES if n in running]
    for spec in specs:
        for node in spec.nodes:
            assert (spec.parameters[node].get("autostart") is False) == (node in running)


def test_the_simulator_starts_first_and_the_arm_stops_after_all_but_the_simulator() -> None:
    specs = graph()
    assert names(specs)[:2] == ["sim_fci", "arm"]
    assert names(specs)[-2:] == ["intervention", "supervisor"]
    stages = {spec.name: spec.stop_stage for spec in specs}
    assert stages["supervisor"] < stages["intervention"] < stages["recorder"] < stages["arm"]
    assert stages["sim_fci"] == max(StopStage)


def test_only_what_nothing_works_without_is_critical() -> None:
    critical = {spec.name for spec in graph() if spec.critical}
    assert critical == {"sim_fci", "arm"}
    assert not any(spec.respawn for spec in graph() if spec.critical)


def test_no_process_is_simulated_on_the_real_cell() -> None:
    specs = graph(backend=Backend.REAL, robot_ip="172.16.0.2")
    assert not {"sim_fci", "sim_cell", "viewer"} & set(names(specs))
    parameters = {node: values for spec in specs for node, values in spec.parameters.items()}
    assert parameters["proprio_driver"]["robot_ip"] == "172.16.0.2"
    assert parameters["camera_wrist"]["driver"] == "realsense"
    assert parameters["supervisor"]["outcome_source"] == "operator"


def test_a_recorder_that_is_not_wanted_is_not_waited_for() -> None:
    specs = graph(record=False)
    supervisor = next(s for s in specs if s.name == "supervisor").parameters["supervisor"]
    assert "recorder" not in names(specs)
    assert "recorder" not in supervisor["managed_nodes"]


def test_overrides_win_over_the_site_which_wins_over_defaults(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    content = {
        "recorder": {"ros__parameters": {"directory": "/data"}},
        "camera_front": {"ros__parameters": {"serial": "123", "width_px": 64}},
        "learner": {"ros__parameters": {"rate": 1.0}},
    }
    site.write_text(yaml.safe_dump(content))
    specs = graph(site=site, overrides={"camera_front": {"width_px": 256}})
    parameters = {node: values for spec in specs for node, values in spec.parameters.items()}
    assert parameters["recorder"]["directory"] == "/data"
    assert parameters["camera_front"]["serial"] == "123"
    assert parameters["camera_front"]["width_px"] == 256


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tasks": ("juggle",)}, "juggle"),
        ({"tasks": ()}, "unknown task"),
        ({"rate": "fast"}, "rate"),
        ({"robot_ip": ""}, "robot_ip"),
        ({"variant": "peg_huge"}, "peg_huge"),
        ({"image_px": 0}, "image_px"),
        ({"overrides": {"cook": {}}}, "cook"),
    ],
)
def test_options_that_make_no_graph_are_named(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        graph(**changes)


@pytest.mark.parametrize("text", ["- a", "arm: 1", "arm: {parameters: {}}", "a: [", ""])
def test_a_site_file_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"site\.yaml"):
        read_site(path)


def test_parameter_files_are_keyed_by_node_so_that_two_nodes_share_a_process() -> None:
    arm = next(spec for spec in graph() if spec.name == "arm")
    content = parameter_file(arm)
    assert set(content) == {"proprio_driver", "impedance_controller"}
    assert yaml.safe_load(yaml.safe_dump(content)) == content


def test_remappings_reach_only_their_process() -> None:
    specs = graph(remappings={"intervention": (("arm/target_pose", "unused/target_pose"),)})
    lines = {s.name: " ".join(ros_arguments(s, Path("p.yaml"))) for s in specs if s.is_ros}
    assert "-r arm/target_pose:=unused/target_pose" in lines["intervention"]
    assert "unused" not in lines["arm"]
    assert "-r __node:=camera_wrist" in lines["camera_wrist"]


def test_every_process_has_its_module_and_every_node_process_its_executable() -> None:
    setup_text = (ROOT / "setup.py").read_text()
    for spec in graph():
        assert importlib.util.find_spec(spec.module) is not None, spec.module
        assert not spec.is_ros or f'"{spec.executable}"' in setup_text


def test_the_environment_selects_the_shared_memory_profile_and_loopback() -> None:
    environment = graph_environment(Path("/run/cell"), base={})
    assert environment["VLA_RL_RUN_DIR"] == "/run/cell"
    assert environment["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
    profile = environment["FASTDDS_DEFAULT_PROFILES_FILE"]
    sizes = [int(e.text) for e in ET.parse(profile).iter() if e.tag.endswith("segment_size")]
    assert min(sizes) > 10 * 640 * 480 * 3
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" not in environment
    jazzy = graph_environment(Path("/run/cell"), base={"ROS_DISTRO": "jazzy"})
    assert jazzy["FASTRTPS_DEFAULT_PROFILES_FILE"] == profile
    kept = graph_environment(Path("/run/cell"), base={"AMENT_PREFIX_PATH": "/opt/ros/jazzy"})
    assert kept["AMENT_PREFIX_PATH"] == "/opt/ros/jazzy"


@pytest.mark.parametrize("task", ["lift", "peg", "button"])
def test_tasks_say_the_same_as_the_simulated_scene(task: str) -> None:
    tasks = pytest.importorskip("vla_rl_ros.sim.tasks")
    assert task in known_tasks()
    spec = tasks.TASKS[tasks.task_by_name(task)]
    assert read_task(task).instruction == spec.instruction


def test_a_config_file_with_an_unknown_or_missing_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("instruction: x\ntime_limit: 3.0\n")
    with pytest.raises(ConfigError, match="time_limit"):
        read_config(path, TaskConfig)
    path.write_text("time_limit_s: 3.0\n")
    with pytest.raises(ConfigError, match="instruction"):
        read_config(path, TaskConfig)
    with pytest.raises(ConfigError, match="juggle"):
        read_task("juggle")


def test_the_shipped_site_files_are_sites_of_nodes_that_exist() -> None:
    known = {node for backend in Backend for s in graph(backend=backend) for node in s.nodes}
    sites = sorted(share_path("config/sites").glob("*.yaml"))
    assert sites
    for site in sites:
        assert set(read_site(site)) <= known


@EVERY_BACKEND
def test_parameters_are_fields_of_their_nodes_config(backend: Backend) -> None:
    pytest.importorskip("rclpy")
    for spec in graph(backend=backend):
        for node in spec.nodes:
            config = config_type(spec.module, node)
            values = {k: v for k, v in spec.parameters[node].items() if k != "autostart"}
            assert set(values) <= set(dotted(config)), node
            flat = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            # Refuses values out of bounds and unknown choices.
            made(config, flat)


def test_no_node_overwrites_what_rclpy_keeps_in_its_base_class() -> None:
    rclpy_node = pytest.importorskip("rclpy.node")
    theirs = set(re.findall(r"self\.(_[a-z]\w*)", Path(rclpy_node.__file__).read_text()))
    for path in (ROOT / "vla_rl_ros/ros/nodes").glob("*.py"):
        ours = set(re.findall(r"self\.(_[a-z]\w*)(?:: [^=\n]+)? = ", path.read_text()))
        assert not ours & theirs, f"{path.name}: {ours & theirs}"


def config_type(module: str, node: str) -> type:
    """Config of a node, from the base its class names."""
    classes = [
        cls
        for cls in vars(importlib.import_module(module)).values()
        if isinstance(cls, type) and cls.__name__ in class_names(node)
    ]
    (config,) = {
        base.__args__[0]
        for cls in classes
        for base in getattr(cls, "__orig_bases__", ())
        if getattr(base, "__args__", ())
    }
    return config


def class_names(node: str) -> set[str]:
    stem = "camera" if node.startswith("camera_") else node
    camel = "".join(part.title() for part in stem.split("_"))
    return {f"{camel}Node", camel}


def dotted(config: type, prefix: str = ""):
    hints = importlib.import_module("vla_rl_ros.core.config").field_hints(config)
    for name, hint in hints.items():
        if dataclasses.is_dataclass(hint):
            yield from dotted(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def made(config: type, flat: dict[str, object]):
    hints = importlib.import_module("vla_rl_ros.core.config").field_hints(config)
    values = {name: value for name, value in flat.items() if "." not in name}
    for outer in {name.split(".")[0] for name in flat if "." in name}:
        inner = {n.split(".", 1)[1]: v for n, v in flat.items() if n.startswith(f"{outer}.")}
        values[outer] = made(hints[outer], inner)
    return config(**values)


def written_site(tmp_path: Path, content: dict[str, dict[str, object]]) -> Path:
    path = tmp_path / "site.yaml"
    site = {node: {"ros__parameters": values} for node, values in content.items()}
    path.write_text(yaml.safe_dump(site), encoding="utf-8")
    return path


def test_no_site_file_turns_a_simulated_cell_into_a_real_one(tmp_path: Path) -> None:
    site = written_site(
        tmp_path, {"proprio_driver": {"robot_ip": "172.16.0.2", "driver": "franka"}}
    )
    specs = build_graph(GraphOptions(backend=Backend.SIM, site=site))
    arm = next(spec for spec in specs if spec.name == "arm")
    assert arm.parameters["proprio_driver"]["robot_ip"] == "127.0.0.1"


def test_a_simulated_arm_needs_a_loopback_address() -> None:
    with pytest.raises(ConfigError, match="loopback"):
        GraphOptions(backend=Backend.SIM, robot_ip="172.16.0.2")


def test_a_misspelt_node_in_a_site_file_is_refused(tmp_path: Path) -> None:
    site = written_site(tmp_path, {"intervension": {"limits.max_step_m": 0.01}})
    with pytest.raises(ConfigError, match="intervension"):
        build_graph(GraphOptions(site=site))


def test_limits_of_a_site_hold_for_gate_and_controller(tmp_path: Path) -> None:
    site = written_site(tmp_path, {"intervention": {"limits.max_step_m": 0.01}})
    specs = {spec.name: spec for spec in build_graph(GraphOptions(site=site))}
    for process, node in (("intervention", "intervention"), ("arm", "impedance_controller")):
        assert specs[process].parameters[node]["limits.max_step_m"] == 0.01
    both = {
        "intervention": {"limits.max_step_m": 0.01},
        "impedance_controller": {"limits.max_step_m": 0.02},
    }
    with pytest.raises(ConfigError, match="differs"):
        build_graph(GraphOptions(site=written_site(tmp_path, both)))


def test_what_nodes_share_is_set_once_and_holds_for_all(tmp_path: Path) -> None:
    site = written_site(tmp_path, {"intervention": {"control_period_s": 0.05}})
    specs = {spec.name: spec for spec in build_graph(GraphOptions(site=site))}
    for name in ("vla_inference", "residual_actor", "intervention"):
        assert specs[name].parameters[name]["control_period_s"] == 0.05


def test_simulation_runs_the_shipped_policy_and_a_real_arm_stands_still() -> None:
    for backend, policy in ((Backend.SIM, "pi0"), (Backend.REAL, "still")):
        specs = {spec.name: spec for spec in graph(backend=backend)}
        assert specs["vla_inference"].parameters["vla_inference"]["policy"] == policy
    with pytest.raises(ConfigError, match="'oracle' is unknown"):
        GraphOptions(policy="oracle")


def test_the_weights_of_the_simulated_cell_never_drive_a_real_arm(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="simulated cell only"):
        graph(backend=Backend.REAL, policy="pi0")
    with pytest.raises(ConfigError, match="simulated cell only"):
        graph(backend=Backend.REAL, policy="openpi", eyes="shipped")
    shutil.copy(SHIPPED / "policy.json", tmp_path)
    own = graph(backend=Backend.REAL, policy="pi0", checkpoint=str(tmp_path))
    (vla,) = (spec for spec in own if spec.name == "vla_inference")
    assert vla.parameters["vla_inference"]["settings.path"] == str(tmp_path)


@pytest.mark.parametrize("source", ["simulator", "bags"])
def test_eyes_of_the_simulated_cell_never_look_at_a_real_arm(tmp_path: Path, source: str) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    manifest = EyesManifest(
        task="peg",
        source=source,
        cameras=("front",),
        image_sizes={"front": (64, 64)},
        image_px=32,
        feature_dim=64,
    )
    write_manifest(manifest, tmp_path)
    graph(backend=Backend.SIM, eyes=str(tmp_path))
    if source == "bags":
        graph(backend=Backend.REAL, eyes=str(tmp_path))
        return
    with pytest.raises(ConfigError, match="learned from the simulated cell"):
        graph(backend=Backend.REAL, eyes=str(tmp_path))


def test_eyes_that_are_none_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--eyes='.*nothing' is no directory.*'train eyes'"):
        graph(eyes=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"--eyes='.*' has neither eyes.json"):
        graph(eyes=str(tmp_path))
    (tmp_path / "eyes.json").write_text("{")
    with pytest.raises(ConfigError, match=r"eyes\.json is not JSON"):
        graph(eyes=str(tmp_path))


def test_weights_that_are_none_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    for option in ({"residual": str(tmp_path)}, {"residual": str(tmp_path / "nothing")}):
        with pytest.raises(ConfigError, match=r"residual '.*' cannot be used"):
            graph(**option)
    with pytest.raises(ConfigError, match=r"give the directory that .* train classifier"):
        graph(classifiers=(str(tmp_path),))
    with pytest.raises(ConfigError, match=r"policy\.json: No such file"):
        graph(checkpoint=str(tmp_path))
    for policy in ("", "onnx", "lerobot", "openpi"):
        with pytest.raises(ConfigError, match=r"--checkpoint .*nothing: there is no such file"):
            graph(policy=policy, checkpoint=str(tmp_path / "nothing"))


def test_a_learner_is_given_a_directory(tmp_path: Path) -> None:
    (tmp_path / "policy.safetensors").touch()
    with pytest.raises(ConfigError, match=r"--learner .* is a file: give the directory"):
        graph(learner=tmp_path / "policy.safetensors")


def test_settings_that_no_learner_has_are_refused_before_anything_is_started(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError, match="preset='nosuch' is unknown"):
        graph(learner=tmp_path, preset="nosuch")
    with pytest.raises(ConfigError, match=r"LearnerConfig\.xi=9\.0 is outside"):
        graph(learner=tmp_path, learner_settings="learner.xi=9")
    site = tmp_path / "site.yaml"
    site.write_text("learner: {ros__parameters: {preset: nosuch}}")
    with pytest.raises(ConfigError, match="preset='nosuch' is unknown"):
        graph(learner=tmp_path, site=site)
    graph(learner=tmp_path, site=site, preset="rlpd")


def test_a_policy_that_the_site_chooses_is_looked_at_as_such(tmp_path: Path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text("vla_inference: {ros__parameters: {policy: onnx}}")
    (tmp_path / "model.onnx").touch()
    graph(site=site, checkpoint=str(tmp_path / "model.onnx"))


def test_eyes_reach_the_policy_and_no_other_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "towers/a").mkdir(parents=True)
    (tmp_path / "towers/a/policy.json").touch()
    specs = {spec.name: spec for spec in graph(eyes="towers/a")}
    found = {
        node
        for spec in specs.values()
        for node, values in spec.parameters.items()
        # Wherever the process is started, it means the same.
        if values.get("settings.eyes") == str(Path.cwd() / "towers/a")
    }
    assert found == {"vla_inference"}


def test_what_the_command_line_chooses_wins_over_the_site(tmp_path: Path) -> None:
    site = written_site(tmp_path, {"vla_inference": {"policy": "openpi", "mode": "sync"}})
    vla = "vla_inference"
    specs = {s.name: s for s in graph(site=site, policy="scripted", mode="naive")}
    assert specs[vla].parameters[vla]["policy"] == "scripted"
    assert specs[vla].parameters[vla]["mode"] == "naive"
    specs = {s.name: s for s in graph(site=site)}
    assert specs[vla].parameters[vla]["mode"] == "sync"


def test_a_learner_runs_where_it_is_wanted_and_nobody_waits_for_it(tmp_path: Path) -> None:
    plain = {spec.name: spec for spec in graph()}
    assert "learner" not in plain
    assert plain["residual_actor"].parameters["residual_actor"]["explore"] is False
    specs = {
        spec.name: spec
        for spec in graph(learner=tmp_path, preset="rlpd", learner_settings="learner.xi=0.3")
    }
    learner = specs["learner"]
    values = learner.parameters["learner"]
    assert values["directory"] == str(tmp_path)
    assert (values["preset"], values["settings"]) == ("rlpd", "learner.xi=0.3")
    # It starts by itself and may die: nothing of acting waits for it or ends with it.
    assert "autostart" not in values
    assert learner.respawn
    assert {name for name, spec in specs.items() if spec.save_s} == {"learner"}
    assert not learner.critical
    assert learner.nice > max(spec.nice for name, spec in specs.items() if name != "learner")
    assert "learner" not in specs["supervisor"].parameters["supervisor"]["managed_nodes"]
    assert specs["residual_actor"].parameters["residual_actor"]["explore"] is True
    for name, node in (("learner", "learner"), ("residual_actor", "residual_actor")):
        config = config_type(specs[name].module, node)
        given = {k: v for k, v in specs[name].parameters[node].items() if k != "autostart"}
        assert config(**given)
    with pytest.raises(ConfigError, match="--learner"):
        graph(preset="rlpd")


def test_the_way_to_the_arm_goes_before_the_recorder_which_gives_way_to_nobody_else() -> None:
    nice = {spec.name: spec.nice for spec in graph()}
    first = {name for name, value in nice.items() if value < nice["recorder"]}
    assert first == {
        "sim_fci", "camera_wrist", "camera_front", "vla_inference", "residual_actor",
        "intervention",
    }  # fmt: skip


def test_a_learned_residual_reaches_the_actor_without_a_learner(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    write_actor(tmp_path / "run/policy.safetensors", made_weights())
    specs = {spec.name: spec for spec in graph(residual=str(tmp_path / "run"))}
    actor = specs["residual_actor"].parameters["residual_actor"]
    assert actor["residual"] == str(tmp_path / "run")
    assert "learner" not in specs
