# SPDX-License-Identifier: Apache-2.0
"""The services of the graph, for people: name, type of `std_srvs`, and what it does.

The nodes make them by themselves; this table is kept by hand.
"""

from __future__ import annotations

SERVICES = (
    ("supervisor/start_episode", "Trigger", "Reset the cell and run an episode of `task`."),
    (
        "supervisor/end_episode",
        "SetBool",
        "End the episode now; `data` says whether it succeeded.",
    ),
    (
        "supervisor/recover",
        "Trigger",
        "Clear a latched fault, then be ready for the next episode.",
    ),
    (
        "supervisor/reset_done",
        "Trigger",
        "Say that the scene stands: ends a reset by hand, or a question about the scene.",
    ),
    (
        "supervisor/labelling",
        "SetBool",
        "Count a person's labelling time: `true` again within 15 s, `false` when it is done.",
    ),
    ("supervisor/bring_down", "Trigger", "Deactivate every node, the gate first, the arm last."),
    (
        "impedance_controller/hold",
        "Trigger",
        "Freeze the reference, end a motion to home, refuse targets and `home` until `recover`.",
    ),
    ("impedance_controller/home", "Trigger", "Plan a motion to the start pose; not while driven."),
    (
        "impedance_controller/recover",
        "Trigger",
        "Clear a hold, a stop or a fault; moves up to 3 x `back_off_m` away from what it presses.",
    ),
    (
        "impedance_controller/rearm",
        "Trigger",
        "Follow targets again after a stop; moves nothing, refused while held or with a fault.",
    ),
    ("sim_cell/prepare", "Trigger", "Simulation only: clear the table before the arm goes home."),
    ("sim_cell/reset", "Trigger", "Simulation only: lay the objects out by task and seed."),
)
