# SPDX-License-Identifier: Apache-2.0
"""Bags in and out."""
