# SPDX-License-Identifier: Apache-2.0
"""Replay: what is acknowledged survives, damage is named, chance is repeatable."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.row_samples import LAYOUT, episode

from vla_rl_ros.core.errors import ConfigError, ReplayError
from vla_rl_ros.learning.replay import Replay, SymmetricSampler
from vla_rl_ros.learning.row_log import RowLog
from vla_rl_ros.learning.rows import RowLayout, as_demonstration
from vla_rl_ros.learning.transitions import rows_to_transitions

N_STEP, GAMMA = 3, 0.95


def open_replay(path, **options):
    return Replay(path, LAYOUT, n_step=N_STEP, gamma=GAMMA, **options)


def blocks(seed: int, count: int) -> list[np.ndarray]:
    """Rows of several episodes, cut into appends of one to four rows."""
    rng = np.random.default_rng(seed)
    ends = ("terminated", "truncated", "interrupted")
    rows = np.concatenate(
        [
            LAYOUT.pack(episode(rng, rng.normal(size=5), number=number, end=ends[number % 3]))
            for number in range(count)
        ]
    )
    cuts = np.cumsum(rng.integers(1, 5, len(rows)))
    return [piece for piece in np.split(rows, cuts[cuts < len(rows)]) if len(piece)]


def test_reopened_rows_are_those_written(tmp_path):
    written = blocks(0, 6)
    replay = open_replay(tmp_path)
    counts = [replay.append(block) for block in written]
    assert counts == np.cumsum([len(block) for block in written]).tolist()
    before = replay.gather(np.arange(len(replay)))
    replay.close()
    again = open_replay(tmp_path)
    assert again.rows.tobytes() == np.concatenate(written).tobytes()
    after = again.gather(np.arange(len(again)))
    for key, column in before.items():
        assert column.tobytes() == after[key].tobytes()
    again.close()


def test_transitions_grow_with_the_episodes_into_those_of_all_rows(tmp_path):
    replay = open_replay(tmp_path)
    for block in blocks(1, 7):
        replay.append(block)
    replay.append(episode(np.random.default_rng(9), [0.0], number=99))  # ends the one before
    expected = rows_to_transitions(replay.rows, LAYOUT, N_STEP, GAMMA)
    found = replay.gather(np.arange(len(replay)))
    assert len(replay) == len(expected["reward"])
    for key, column in expected.items():
        np.testing.assert_array_equal(found[key], column, err_msg=key)
    replay.close()


def test_an_unfinished_episode_is_stored_but_not_drawn(tmp_path):
    rows = episode(np.random.default_rng(2), [0.0, 0.0, 1.0])
    replay = open_replay(tmp_path)
    replay.append(rows[:2])
    assert (replay.num_rows, len(replay)) == (2, 0)
    with pytest.raises(ReplayError, match="no finished episode"):
        replay.sample(4, np.random.default_rng(0))
    replay.close()
    # Another process goes on with the same episode: nothing of it is missing.
    again = open_replay(tmp_path)
    again.append(rows[2:])
    found = again.gather(np.arange(len(again)))
    assert found["mc_return"].tolist() == pytest.approx([GAMMA**2, GAMMA, 1.0])
    again.close()


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_kill_at_any_byte_leaves_what_was_acknowledged(tmp_path_factory, data):
    """The files after a kill are those of a prefix of the bytes, in the order of writing."""
    path = tmp_path_factory.mktemp("kill") / "replay"
    written = blocks(data.draw(st.integers(0, 50), label="seed"), 3)
    log = RowLog(path, LAYOUT)
    for block in written:
        log.append(block)
    log.close()
    rows, entries = (path / "rows.bin").read_bytes(), (path / "blocks.bin").read_bytes()
    entry_size = len(entries) // len(written)
    sizes = [block.nbytes for block in written]
    total = sum(sizes) + len(entries)
    killed_at = data.draw(st.integers(0, total), label="killed at byte")
    left, num_rows, num_entries, acknowledged = killed_at, 0, 0, 0
    for block, size in zip(written, sizes, strict=True):
        num_rows += min(left, size)
        left -= min(left, size)
        num_entries += min(left, entry_size)
        acknowledged += len(block) if left >= entry_size else 0
        left -= min(left, entry_size)
    hole = data.draw(st.sampled_from([0, 4096]), label="room reserved ahead")
    (path / "rows.bin").write_bytes(rows[:num_rows] + bytes(hole))
    (path / "blocks.bin").write_bytes(entries[:num_entries])
    expected = np.concatenate(written)
    log = RowLog(path, LAYOUT)
    assert log.rows.tobytes() == expected[:acknowledged].tobytes()
    # It goes on from there.
    log.append(expected[acknowledged:])
    assert log.rows.tobytes() == expected.tobytes()
    log.close()


KILLED = """
import sys, numpy as np
from pathlib import Path
from unit.row_samples import LAYOUT, episode
from vla_rl_ros.learning.replay import Replay
replay = Replay(Path(sys.argv[1]), LAYOUT, n_step=3, gamma=0.95)
rng = np.random.default_rng(0)
for number in range(10**6):
    for row in episode(rng, [0.0] * 4, number=number):
        print(replay.append([row]), flush=True)
"""


def test_a_killed_process_loses_no_acknowledged_row(tmp_path, pytestconfig):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path / "replay")],
        stdout=subprocess.PIPE,
        text=True,
        cwd=pytestconfig.rootpath / "test",
        env={"PYTHONPATH": f"{pytestconfig.rootpath}:{pytestconfig.rootpath / 'test'}",
             "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(500)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
    replay = open_replay(tmp_path / "replay")
    assert acknowledged[-1] <= replay.num_rows <= acknowledged[-1] + 1
    rng = np.random.default_rng(0)
    rows = [row for number in range(400) for row in episode(rng, [0.0] * 4, number=number)]
    count = min(replay.num_rows, len(rows))
    assert replay.rows[:count].tobytes() == LAYOUT.pack(rows[:count]).tobytes()
    replay.close()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_changed_byte_is_detected_and_its_block_named(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damage") / "replay"
    written = blocks(7, 3)
    log = RowLog(path, LAYOUT)
    for block in written:
        log.append(block)
    log.close()
    starts = np.cumsum([0, *[len(block) for block in written]])
    victim = data.draw(st.integers(0, len(written) - 1), label="block")
    name = data.draw(st.sampled_from(["rows.bin", "blocks.bin"]), label="file")
    size = LAYOUT.dtype.itemsize
    if name == "rows.bin":
        low, high = starts[victim] * size, starts[victim + 1] * size
    else:
        entry = (path / name).stat().st_size // len(written)
        low, high = victim * entry, (victim + 1) * entry
    content = bytearray((path / name).read_bytes())
    place = data.draw(st.integers(int(low), int(high) - 1), label="byte")
    content[place] ^= data.draw(st.integers(1, 255), label="change")
    (path / name).write_bytes(content)
    with pytest.raises(ReplayError, match=rf"block {victim} \(rows from {starts[victim]}, "):
        RowLog(path, LAYOUT)
    log = RowLog(path, LAYOUT, skip_damaged=True)
    assert len(log.damaged) == 1
    # All the other rows are still there.
    for number, (first, block) in enumerate(zip(starts, written, strict=False)):
        if number != victim:
            assert log.rows[first : first + len(block)].tobytes() == block.tobytes()
    log.close()


@pytest.mark.parametrize("kept", [5, 4, 1])
def test_what_is_written_after_damage_costs_nothing_that_is_sound(tmp_path, kept):
    rng = np.random.default_rng(3)
    written = [LAYOUT.pack(episode(rng, [0.0] * 4, number=number)) for number in range(7)]
    log = RowLog(tmp_path, LAYOUT)
    for rows in written[:5]:
        log.append(rows)
    log.close()
    content = bytearray((tmp_path / "blocks.bin").read_bytes())
    for damaged in (1, 2):  # neighbours, as in a bad sector of a disk
        content[damaged * len(content) // 5] ^= 0xFF
    (tmp_path / "blocks.bin").write_bytes(content)
    log = RowLog(tmp_path, LAYOUT, skip_damaged=True)
    log.rewind(5 * kept)
    for rows in written[5:]:
        log.append(rows)
    log.close()
    log = RowLog(tmp_path, LAYOUT, skip_damaged=True)
    assert log.rows.tobytes() == np.concatenate([*written[:kept], *written[5:]]).tobytes()
    assert [(block.first, block.count) for block in log.damaged] == [(5, 10)][: kept - 1]
    log.close()


def test_damaged_rows_are_never_drawn(tmp_path):
    rng = np.random.default_rng(3)
    replay = open_replay(tmp_path)
    for number in range(3):
        replay.append(episode(rng, [0.0] * 4, number=number))
    replay.close()
    content = bytearray((tmp_path / "rows.bin").read_bytes())
    content[7 * LAYOUT.dtype.itemsize] ^= 0xFF  # in the second episode
    (tmp_path / "rows.bin").write_bytes(content)
    replay = open_replay(tmp_path, skip_damaged=True)
    expected = [
        rows_to_transitions(replay.rows[i : i + 5], LAYOUT, N_STEP, GAMMA) for i in (0, 10)
    ]
    found = replay.gather(np.arange(len(replay)))
    np.testing.assert_array_equal(found["obs"], np.concatenate([one["obs"] for one in expected]))
    np.testing.assert_array_equal(
        found["next_obs"], np.concatenate([one["next_obs"] for one in expected])
    )
    replay.close()


def test_rows_missing_from_a_listed_block_are_damage(tmp_path):
    log = RowLog(tmp_path, LAYOUT)
    log.append(LAYOUT.pack(episode(np.random.default_rng(4), [0.5] * 4)))
    log.close()
    content = (tmp_path / "rows.bin").read_bytes()
    (tmp_path / "rows.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(ReplayError, match=r"block 0 \(rows from 0, 5 of them\)"):
        RowLog(tmp_path, LAYOUT)


def test_one_writer_at_a_time(tmp_path):
    first = open_replay(tmp_path)
    with pytest.raises(ReplayError, match="another process"):
        open_replay(tmp_path)
    first.close()
    open_replay(tmp_path).close()


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (RowLayout(obs_dim=4, action_dim=2), "obs_dim=3"),
        (RowLayout(obs_dim=3, action_dim=2, reward_version="2"), "reward_version='1'"),
        (RowLayout(obs_dim=3, action_dim=2, obs_version="tower"), "obs_version=''"),
    ],
)
def test_rows_of_another_meaning_are_refused_by_field(tmp_path, other, field):
    RowLog(tmp_path, LAYOUT).close()
    with pytest.raises(ConfigError, match=field):
        RowLog(tmp_path, other)


def test_a_full_disk_adds_nothing_and_says_so(tmp_path, monkeypatch):
    replay = open_replay(tmp_path)
    rows = episode(np.random.default_rng(5), [0.0, 1.0])
    replay.append(rows)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.pwrite", refuse)
        with pytest.raises(ReplayError, match=r"3 rows not stored.*No space"):
            replay.append(episode(np.random.default_rng(6), [0.0, 1.0], number=1))
    assert replay.num_rows == 3
    replay.close()
    again = open_replay(tmp_path)
    assert again.rows.tobytes() == LAYOUT.pack(rows).tobytes()
    again.close()


def test_equal_seeds_give_equal_samples_also_after_reopening(tmp_path):
    replay = open_replay(tmp_path)
    for number in range(5):
        replay.append(episode(np.random.default_rng(number), [0.0] * 9, number=number))
    samples = [replay.sample(32, np.random.default_rng(11)) for _ in range(2)]
    other = replay.sample(32, np.random.default_rng(12))
    replay.close()
    again = open_replay(tmp_path)
    samples.append(again.sample(32, np.random.default_rng(11)))
    for key in samples[0]:
        assert samples[0][key].tobytes() == samples[1][key].tobytes() == samples[2][key].tobytes()
    assert other["obs"].tobytes() != samples[0]["obs"].tobytes()
    again.close()


def test_rewinding_repeats_a_run_from_its_snapshot(tmp_path):
    replay = open_replay(tmp_path)
    replay.append(episode(np.random.default_rng(0), [0.0] * 4, number=0))
    kept = replay.rows.tobytes()
    replay.append(episode(np.random.default_rng(1), [0.0] * 4, number=1))
    with pytest.raises(ReplayError, match="no append ended there"):
        replay.rewind(3)
    replay.rewind(5)
    assert (replay.rows.tobytes(), len(replay)) == (kept, 4)
    replay.append(episode(np.random.default_rng(2), [0.0] * 2, number=1))
    assert len(replay) == 6
    replay.close()
    again = open_replay(tmp_path)
    assert again.num_rows == 8
    again.close()


def test_a_window_draws_only_what_is_new(tmp_path):
    replay = open_replay(tmp_path, window=4)
    for number in range(3):
        replay.append(episode(np.random.default_rng(number), [float(number)] * 4, number=number))
    assert len(replay) == 4
    assert (replay.sample(64, np.random.default_rng(0))["mc_return"] >= 2.0).all()
    replay.close()


def test_batches_are_symmetric_once_both_buffers_have_something(tmp_path):
    online, offline = open_replay(tmp_path / "on"), open_replay(tmp_path / "off")
    sampler = SymmetricSampler(online, offline, 0.5)
    rng = np.random.default_rng(0)
    with pytest.raises(ReplayError, match="no finished episode"):
        sampler.sample(8, rng)
    online.append(episode(rng, [0.0] * 4))
    assert sampler.sample(8, rng)["is_demo"].tolist() == [0.0] * 8
    offline.append(as_demonstration(LAYOUT.pack(episode(rng, [0.0] * 4))))
    assert sampler.sample(8, rng)["is_demo"].tolist() == [1.0] * 4 + [0.0] * 4
    assert SymmetricSampler(online, offline, 0.0).sample(8, rng)["is_demo"].max() == 0.0
    online.close()
    offline.close()


def test_interventions_are_drawn_alone_with_the_sums_of_their_episode(tmp_path):
    rows = LAYOUT.pack(episode(np.random.default_rng(8), [0.0, 0.0, 0.0, 1.0]))
    rows["source"][1] = 2
    replay = open_replay(tmp_path)
    replay.append(as_demonstration(rows, only_human=True))
    found = replay.gather(np.arange(len(replay)))
    np.testing.assert_array_equal(found["obs"], rows["obs"][1:2])
    assert found["mc_return"].tolist() == pytest.approx([GAMMA**2])
    replay.close()


def test_a_copied_directory_is_the_same_replay(tmp_path):
    replay = open_replay(tmp_path / "a")
    for number in range(2):
        replay.append(episode(np.random.default_rng(number), [1.0] * 3, number=number))
    shutil.copytree(tmp_path / "a", tmp_path / "b")  # while it is open
    copy = open_replay(tmp_path / "b")
    assert copy.rows.tobytes() == replay.rows.tobytes()
    replay.close()
    copy.close()
