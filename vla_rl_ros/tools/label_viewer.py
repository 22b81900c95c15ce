# SPDX-License-Identifier: Apache-2.0
"""Shows labelled frames and takes corrections: a page on 127.0.0.1, or keys in a terminal.

The page needs nothing from the network. Whatever is answered is stored at once, so closing the
page or killing the command loses nothing. Called by `vla-rl-ros label`.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from importlib.resources import files
from typing import TextIO
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

from vla_rl_ros.data.label_rules import Label
from vla_rl_ros.data.label_set import LabelSet, Word
from vla_rl_ros.tools.loopback_http import PageHandler, PageServer
from vla_rl_ros.tools.page_image import encode_png

KEYS = {"s": Label.SUCCESS.value, "f": Label.FAILURE.value, "x": Label.SKIP.value}
_HOST = "127.0.0.1"
_LENGTH = re.compile(r"[0-9]{1,4}")
_PAGE = "label_page.html"


class Review:
    """The frames of a set in order, and what is said of them; used by one person at a time."""

    def __init__(
        self, labels: LabelSet, who: str, touch: Callable[[], None] = lambda: None
    ) -> None:
        """Look at a set.

        Args:
            labels: To look at and to write to.
            who: Name noted with every correction.
            touch: Called whenever a frame is looked at or spoken of.
        """
        self._labels, self._who, self._touch = labels, who, touch
        self._keys = [(word.episode, word.stamp_ns) for word in labels.words]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self._keys)

    def look(self, number: int) -> Mapping[str, NDArray[np.uint8]]:
        """Images of a frame by camera."""
        self._touch()
        return self._labels.images(self.word(number))

    def word(self, number: int) -> Word:
        """What is said of a frame now."""
        by_key = {(word.episode, word.stamp_ns): word for word in self._labels.words}
        return by_key[self._keys[number]]

    def rows(self) -> list[dict[str, object]]:
        """What the page shows of every frame besides its images."""
        return [
            {"episode": w.episode, "kind": w.kind, "label": w.label, "who": w.who,
             "stamp_ns": str(w.stamp_ns)}
            for w in self._labels.words
        ]  # fmt: skip

    def image(self, number: int, camera: str) -> bytes:
        """Image of a frame as PNG; raises KeyError for an unknown camera."""
        return encode_png(self.look(number)[camera])

    def say(self, number: int, label: str) -> Word:
        """Store a label; raises KeyError or ValueError for what does not exist."""
        self._touch()
        before = self.word(number)
        word = Word(
            episode=before.episode,
            bag=before.bag,
            kind=before.kind,
            stamp_ns=before.stamp_ns,
            label=Label(label).value,
            who=self._who,
        )
        self._labels.say([word])
        return word

    @property
    def cameras(self) -> tuple[str, ...]:
        """Cameras of the set."""
        return self._labels.cameras


def make_server(review: Review, port: int) -> PageServer:
    """A server of the page on 127.0.0.1; port 0 takes a free one. Close it with `server_close`."""

    class Handler(_Handler):
        pass

    Handler.review = review
    return PageServer(_HOST, port, Handler)


def view_in_browser(review: Review, port: int) -> None:
    """Serve the page until it says that it is done, or Ctrl-C."""
    server = make_server(review, port)
    address = f"http://{_HOST}:{server.server_address[1]}/"
    print(f"[label] open {address} (keys s, f, x; q when done)", file=sys.stderr, flush=True)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        print("[label] everything that was said is stored", file=sys.stderr)
    finally:
        server.server_close()


class _Handler(PageHandler):
    """Answers the page: the list, images, and labels."""

    server: PageServer
    review: Review

    def do_GET(self) -> None:  # noqa: N802 - named by http.server
        """Page, list of frames, or an image."""
        if not self._is_local():
            self._refuse(HTTPStatus.FORBIDDEN, "only on this machine")
            return
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/":
            self.send_page(files("vla_rl_ros.tools").joinpath(_PAGE).read_text(encoding="utf-8"))
        elif url.path == "/frames":
            shown = {"cameras": self.review.cameras, "frames": self.review.rows()}
            self.send_body(HTTPStatus.OK, "application/json", json.dumps(shown).encode())
        elif url.path == "/image":
            self._try(
                lambda: self.send_body(
                    HTTPStatus.OK, "image/png", self.review.image(int(query["n"]), query["camera"])
                )
            )
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "not found")

    def do_POST(self) -> None:  # noqa: N802 - named by http.server
        """A label, or the end. Only the page itself may: its requests carry JSON."""
        # A page of another site cannot send this type without asking first, which is refused.
        if self.headers.get("Content-Type") != "application/json" or not self._is_local():
            self._refuse(HTTPStatus.FORBIDDEN, "only from the page itself")
            return
        length = self.headers.get("Content-Length", "")
        if not _LENGTH.fullmatch(length):
            self._refuse(HTTPStatus.BAD_REQUEST, "no length that a request of the page has")
            return
        body = self.rfile.read(int(length))
        if self.path == "/done":
            self.send_body(HTTPStatus.OK, "application/json", b"{}")
            # From another thread than `serve_forever`, or it would wait for itself.
            self.server.shutdown()
        elif self.path == "/label":
            self._try(lambda: self._label(json.loads(body)))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "not found")

    def _label(self, wanted: dict[str, object]) -> None:
        word = self.review.say(int(str(wanted["n"])), str(wanted["label"]))
        answer = {"label": word.label, "who": word.who}
        self.send_body(HTTPStatus.OK, "application/json", json.dumps(answer).encode())

    def _is_local(self) -> bool:
        return self.server.knows_host(self.headers.get("Host", ""))

    def _try(self, answer: Callable[[], None]) -> None:
        try:
            answer()
        except (KeyError, ValueError, IndexError, TypeError) as error:
            self._refuse(HTTPStatus.BAD_REQUEST, f"{type(error).__name__}: {error}")

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self.send_body(status, "text/plain", sentence.encode())


def view_in_terminal(review: Review, keys: TextIO, shown: TextIO) -> None:
    """Show frames one by one in true colour and read a key and Enter for each.

    ``s``, ``f`` and ``x`` say success, failure and skip; Enter alone leaves it, ``b`` goes back,
    ``q`` ends.
    """
    number = 0
    while number < len(review):
        word = review.word(number)
        pictures = review.look(number)
        shown.write("\n" + _in_colour(np.concatenate([pictures[c] for c in review.cameras], 1)))
        shown.write(
            f"{number + 1} of {len(review)}  {word.episode}  {word.label} (says {word.who})  "
            "s/f/x, Enter, b, q: "
        )
        shown.flush()
        line = keys.readline()
        key = line.strip().lower()
        if not line or key == "q":
            return
        if key == "b":
            number = max(0, number - 1)
            continue
        if key in KEYS:
            review.say(number, KEYS[key])
        elif key:
            continue
        number += 1


def _in_colour(image: NDArray[np.uint8], width: int = 96) -> str:
    """Half blocks of 24-bit colour, two rows of pixels per line."""
    step = max(1, image.shape[1] // width)
    small = image[::step, ::step]
    small = small[: len(small) // 2 * 2]
    lines = []
    for upper, lower in zip(small[::2].tolist(), small[1::2].tolist(), strict=True):
        cells = [
            "\x1b[38;2;{};{};{}m\x1b[48;2;{};{};{}m\u2580".format(*above, *below)
            for above, below in zip(upper, lower, strict=True)
        ]
        lines.append("".join(cells) + "\x1b[0m\n")
    return "".join(lines)
