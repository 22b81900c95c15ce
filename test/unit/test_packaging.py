# SPDX-License-Identifier: Apache-2.0
"""What is declared is what is there: manifest, executables, pins, DDS profile, colcon build."""

from __future__ import annotations

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib.util import find_spec
from pathlib import Path

import pytest

import vla_rl_ros
from vla_rl_ros.ros.processes import Backend, GraphOptions, build_graph
from vla_rl_ros.ros.share import share_path

ROOT = share_path()
CODE = sorted(
    path
    for folder in ("vla_rl_ros", "test", "launch", "bench")
    for path in (ROOT / folder).rglob("*.py")
)
# ROS packages that may be there or not; their users cope with both.
OPTIONAL_ROS = {"tf2_msgs"}
NAME = re.compile(r"^[A-Za-z0-9._-]+")

if not (ROOT / "setup.py").is_file():
    pytest.skip("needs a source checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def manifest():
    return ElementTree.parse(ROOT / "package.xml").getroot()


@pytest.fixture(scope="module")
def setup_arguments():
    """Arguments with which setup.py calls setuptools."""
    import setuptools

    arguments = {}
    patch = pytest.MonkeyPatch()
    patch.setattr(setuptools, "setup", arguments.update)
    patch.chdir(ROOT)
    try:
        runpy.run_path("setup.py")
    finally:
        patch.undo()
    return arguments


def console_scripts(setup_arguments):
    entries = setup_arguments["entry_points"]["console_scripts"]
    return dict(entry.split(" = ") for entry in entries)


def test_version_is_the_same_everywhere(manifest, setup_arguments):
    version = manifest.findtext("version")

    assert setup_arguments["version"] == version
    assert vla_rl_ros.__version__ == version


def test_manifest_declares_every_ros_package_that_is_imported(manifest):
    declared = {element.text for element in manifest.iter("exec_depend")} | OPTIONAL_ROS
    imported = set()
    for path in CODE:
        if path.is_relative_to(ROOT / "test"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.partition(".")[0])
    is_ros = re.compile(r"(.*_(msgs|interfaces|srvs)|rclpy|launch.*|ament_.*|tf2_.*|rosbag2_.*)$")

    assert {name for name in imported if is_ros.match(name)} <= declared


def test_manifest_declares_every_ros_package_that_is_launched(manifest):
    declared = {element.text for element in manifest.iter("exec_depend")}
    launched = {
        name
        for path in CODE
        if not path.is_relative_to(ROOT / "test")
        for name in re.findall(r'\bpackage="(\w+)"', path.read_text(encoding="utf-8"))
    }

    assert launched <= declared


def test_every_console_script_has_a_main(setup_arguments):
    for name, target in console_scripts(setup_arguments).items():
        module, _, function = target.partition(":")
        spec = find_spec(module)
        assert spec is not None, f"{name}: no module {module}"
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in functions, f"{name}: no {function} in {module}"


def test_every_process_has_an_executable_for_ros2_run(setup_arguments):
    scripts = console_scripts(setup_arguments)
    shipped = {path.name: path for path in (ROOT / "scripts/libexec").iterdir()}

    assert set(shipped) == set(scripts) - {"vla-rl-ros"}
    for name, path in shipped.items():
        assert os.access(path, os.X_OK)
        assert f"from {scripts[name].replace(':', ' import ')}\n" in path.read_text("utf-8")


@pytest.mark.parametrize("backend", list(Backend))
def test_graph_starts_only_executables_that_are_installed(setup_arguments, backend):
    scripts = console_scripts(setup_arguments)

    for spec in build_graph(GraphOptions(backend=backend)):
        if spec.is_ros:
            assert scripts[spec.executable] == f"{spec.module}:main"


def test_shared_files_are_installed(setup_arguments):
    installed = {
        f"{folder}/{Path(file).name}"
        for folder, files in setup_arguments["data_files"]
        for file in files
    }

    assert "share/ament_index/resource_index/packages/vla_rl_ros" in installed
    for folder in ("config", "launch", "urdf"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"share/vla_rl_ros/{path.relative_to(ROOT)}" in installed


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("runtime", ("sim", "hardware", "ros")), ("dev", ("sim", "hardware", "ros", "dev"))],
)
def test_lock_pins_what_setup_asks_for(setup_arguments, lock, extras):
    lines = (ROOT / f"requirements/{lock}.lock").read_text(encoding="utf-8").splitlines()
    pinned = {line.partition("==")[0] for line in lines if not line.startswith("#")}
    wanted = list(setup_arguments["install_requires"])
    for extra in extras:
        wanted += setup_arguments["extras_require"][extra]

    assert {NAME.match(name)[0].lower() for name in wanted} <= pinned
    assert all("==" in line for line in lines if not line.startswith("#"))


def test_both_locks_pin_the_same_versions():
    runtime, dev = (
        set((ROOT / f"requirements/{name}.lock").read_text("utf-8").splitlines()[1:])
        for name in ("runtime", "dev")
    )

    assert runtime <= dev


def test_dds_profile_holds_frames_of_two_vga_cameras():
    root = ElementTree.parse(ROOT / "config/fastdds_shm.xml").getroot()
    space = {"dds": root.tag.partition("}")[0].strip("{")}
    segment_bytes = int(root.find(".//dds:segment_size", space).text)

    assert segment_bytes >= 2 * 10 * 640 * 480 * 3
    assert root.find(".//dds:useBuiltinTransports", space).text == "false"


def test_every_source_file_names_its_licence_and_purpose():
    faulty = []
    for path in CODE:
        text = path.read_text(encoding="utf-8")
        is_licensed = text.startswith("# SPDX-License-Identifier: Apache-2.0\n")
        if not (is_licensed and ast.get_docstring(ast.parse(text))):
            faulty.append(str(path.relative_to(ROOT)))

    assert not faulty


def test_setup_refuses_an_unknown_profile_in_one_sentence():
    result = subprocess.run(
        [ROOT / "scripts/setup.sh", "everything"], capture_output=True, text=True, check=False
    )

    assert result.returncode == 1
    assert result.stderr == "setup: Unknown profile 'everything'; use runtime or dev.\n"


@pytest.mark.graph
def test_colcon_builds_a_checkout_that_can_be_imported(tmp_path):
    checkout = tmp_path / "vla_rl_ros"
    ignore = shutil.ignore_patterns(".*", "__pycache__", "out", "build", "install", "log")
    shutil.copytree(ROOT, checkout, ignore=ignore)
    tools = Path(sys.executable).parent
    colcon = shutil.which("colcon", path=f"{tools}{os.pathsep}{os.environ['PATH']}")
    if colcon is None:
        pytest.skip("colcon is not installed")
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "AMENT_PREFIX_PATH": os.environ.get("AMENT_PREFIX_PATH", sys.prefix),
    }

    subprocess.run(
        [colcon, "build"], cwd=checkout, env=environment, check=True, capture_output=True
    )
    python = (
        "import vla_rl_ros, vla_rl_ros.ros.share as share; "
        "print(vla_rl_ros.__file__, share.share_path())"
    )
    found = subprocess.run(
        ["bash", "-c", f"source install/setup.bash && cd / && python -c '{python}'"],
        cwd=checkout,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    prefix = checkout / "install/vla_rl_ros"
    executables = {path.name for path in (prefix / "lib/vla_rl_ros").iterdir()}

    assert Path(found[0]).is_relative_to(prefix)
    assert Path(found[1]) == prefix / "share/vla_rl_ros"
    assert {"arm", "camera", "supervisor", "vla-rl-ros"} <= executables
