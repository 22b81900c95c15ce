# SPDX-License-Identifier: Apache-2.0
"""The simulated cell: scene, physics behind Franka's protocol, cameras, tasks, fast simulator."""
