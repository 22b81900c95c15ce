# SPDX-License-Identifier: Apache-2.0
"""The network side shared by the simulated arm and gripper: cheap polling, drops on demand.

franky_sim polls every socket at every millisecond by waiting for exceptions. The mixin here asks
the kernel once whether TCP has anything to say, sends over a connected UDP socket, survives
malformed traffic by dropping the client, and can fall silent like a pulled cable.
"""

from __future__ import annotations

import logging
import select
import socket
import struct

from franky_sim.franka_server import FrankaServer

LOG = logging.getLogger(__name__)

# How long TCP is read at every tick after it had something to say: messages that arrive together
# are taken one a tick, and what is already buffered no longer shows as readable.
_BUSY_TICKS = 20
_ACCEPT_EVERY_TICKS = 20
# Linux tells that the peer is gone without a read; elsewhere the read does.
_HANG_UP: int = getattr(select, "POLLRDHUP", 0)
_MALFORMED = (ConnectionError, KeyError, ValueError, struct.error)


class FciLink(FrankaServer):  # type: ignore[misc]  # franky_sim ships no types
    """Mixin for `FrankaServer` classes; put it first among the bases.

    Attributes:
        num_malformed: Clients dropped because of traffic that made no sense.
    """

    def __init__(self, *args: object, **options: object) -> None:
        """Create the server; arguments are those of the other base."""
        super().__init__(*args, **options)
        self.num_malformed = 0
        self._udp: socket.socket | None = None
        self._udp_poll = select.poll()
        self._poll = select.poll()
        self._polled: socket.socket | None = None
        self._tick = 0
        self._busy_ticks = 0
        self._silent_ticks = 0
        self._is_port_refused = False

    @property
    def is_silent(self) -> bool:
        """Whether the link is dropped at the moment."""
        return self._silent_ticks > 0

    @property
    def udp_connected(self) -> bool:
        """Whether a client said where to send states."""
        return self._udp is not None

    def drop_link(self, num_ticks: int) -> None:
        """Stop listening and sending; afterwards the client is gone and a new one may come.

        Args:
            num_ticks: Duration in simulation steps.
        """
        self._silent_ticks = num_ticks

    def process_commands(self) -> None:
        """Take in what the client sent and set the controls of the next step."""
        self._tick += 1
        if self._silent_ticks > 0:
            self._silent_ticks -= 1
            if self._silent_ticks == 0:
                self.reset_state()
            self._post_process_commands()
            return
        if not self._has_tcp_work():
            self._pre_process_commands()
            self._process_udp_commands()
            self._post_process_commands()
            return
        try:
            super().process_commands()
        except _MALFORMED as error:
            self._drop_client(repr(error))
        if self._is_port_refused:
            self._drop_client("no UDP port to send states to")

    def _drop_client(self, reason: str) -> None:
        LOG.warning("dropped the client after malformed traffic: %s", reason)
        self.num_malformed += 1
        self.reset_state()

    def _has_tcp_work(self) -> bool:
        if self._busy_ticks > 0:
            self._busy_ticks -= 1
            return True
        client = self._tcp_socket
        is_accept_due = self._tick % _ACCEPT_EVERY_TICKS == 0
        if client is None:
            return is_accept_due
        if client is not self._polled:
            self._poll = select.poll()
            self._poll.register(client, select.POLLIN | _HANG_UP)
            self._polled = client
        for _, events in self._poll.poll(0):
            if events & (_HANG_UP | select.POLLHUP | select.POLLERR):
                # Not left to the parser: a length that makes no sense has it wait for ever.
                self.reset_state()
                return False
            self._busy_ticks = _BUSY_TICKS
            return True
        # Only now: a client that has just closed makes room for the next one.
        if is_accept_due:
            self._refuse_second_client()
        return False

    def _refuse_second_client(self) -> None:
        # franky_sim leaves it waiting for ever in the backlog of a socket that it keeps private.
        listener = self._FrankaServer__server_socket
        try:
            second, address = listener.accept()
        except OSError:
            return
        second.close()
        LOG.warning("refused %s: another client is connected", address[0])

    def reset_state(self) -> None:
        """Forget the client and everything of its session."""
        self._is_port_refused = False
        self._busy_ticks = 0
        if self._udp is not None:
            self._udp.close()
            self._udp = None
        super().reset_state()

    def cleanup(self) -> None:
        """Close all sockets, that of the client included."""
        self.reset_state()
        super().cleanup()

    def _setup_udp_connection(self, network_udp_port: int) -> None:
        peer = self._tcp_socket.getpeername()[0]
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        # Bound to the server's own address: a simulated arm on 127.0.0.1 is for this host only.
        try:
            udp.bind((self.hostname, 0))
            udp.connect((peer, network_udp_port))
        except OSError:
            udp.close()
            self._is_port_refused = True
            return
        udp.setblocking(False)
        self._udp_poll = select.poll()
        self._udp_poll.register(udp, select.POLLIN)
        self._udp = udp
        LOG.info("client %s connected, states go to port %d", peer, network_udp_port)

    def _send_datagram(self, payload: bytes | bytearray) -> None:
        if self._udp is None or self._silent_ticks > 0:
            return
        try:
            self._udp.send(payload)
        except (ConnectionError, BlockingIOError):
            # The client died a moment ago (TCP will tell) or does not read; libfranka copes with
            # lost states.
            return

    def wait_for_datagram(self, timeout_s: float) -> None:
        """Wait until a datagram is there to be received, at most `timeout_s`."""
        if self._udp is not None:
            self._udp_poll.poll(timeout_s * 1e3)

    def _receive_datagram(self, buffer: bytearray) -> int:
        """Receive one waiting datagram into `buffer`; its length, 0 when there is none."""
        if self._udp is None:
            return 0
        try:
            return self._udp.recv_into(buffer)
        except (ConnectionError, BlockingIOError):
            return 0
