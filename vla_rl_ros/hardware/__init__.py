# SPDX-License-Identifier: Apache-2.0
"""Device handles behind Protocols; vendor SDKs are imported when a device is opened."""
