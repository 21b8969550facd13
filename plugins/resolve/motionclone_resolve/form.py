"""The form: a page in the user's browser, served to this computer alone while the script runs.

The address works once: its token is exchanged for a cookie, without which nothing is answered. Requests that name
another host, or come from another page, are refused. The server lives on a thread of its own and touches nothing of
Resolve; the script's thread waits for what the user does.
"""

import json
import os
import secrets
import threading
import time
import webbrowser
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from .console import say

PAGE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page.html")
LARGEST_REQUEST = 100_000
COOKIE = "motionclone"


class Form:
    """A page with the state `ask`, `busy`, `done`, `failed` or `cancelled`, and what the user did there."""

    def __init__(self, opener=webbrowser.open, closing_grace=5.0, idle_limit=3600.0):
        """`opener` shows an address. A page left for `closing_grace` seconds, or silent for `idle_limit`, is closed."""
        self.cancelled = threading.Event()
        self._closing_grace, self._idle_limit = closing_grace, idle_limit
        self._changed = threading.Condition()
        self._submitted = None
        self._state = {"state": "ask"}
        self._heard = time.monotonic()
        self._left = None
        self._token = secrets.token_urlsafe(24)
        self._cookie = secrets.token_urlsafe(24)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._host = f"127.0.0.1:{self._server.server_address[1]}"
        self.address = f"http://{self._host}/?token={self._token}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
        opened = False
        try:
            opened = opener(self.address)
        except (OSError, webbrowser.Error):
            pass
        say(f"motionclone: {'the form is' if opened else 'open'} at {self.address}")

    def show(self, state, **details):
        """Replaces what the page shows."""
        with self._changed:
            self._state = {"state": state, **details}

    def answer(self):
        """Waits for the user: the form's fields with `action` (`clone` or `plan`); None when the page was closed."""
        with self._changed:
            while self._submitted is None:
                now = time.monotonic()
                if self._left is not None and now - self._left > self._closing_grace:
                    return None
                if now - self._heard > self._idle_limit:
                    return None
                self._changed.wait(0.2)
            submitted, self._submitted = self._submitted, None
            return submitted

    def wait_until_seen(self, limit=5.0):
        """Lets the page fetch its last state before the server ends."""
        with self._changed:
            self._state["final"] = True
            self._changed.wait_for(lambda: self._state.get("seen"), limit)

    def close(self):
        """Ends the server."""
        self._server.shutdown()
        self._server.server_close()

    # What the server's threads call.

    def _enter(self, token):
        with self._changed:
            good = self._token is not None and secrets.compare_digest(token.encode(), self._token.encode())
            if good:
                self._token = None
            return good

    def _look(self):
        with self._changed:
            self._heard, self._left = time.monotonic(), None
            shown = dict(self._state)
            if self._state.get("final"):
                self._state["seen"] = True
                self._changed.notify_all()
            return shown

    def _submit(self, fields):
        with self._changed:
            if self._state["state"] != "ask":
                return
            # At once, so that a second click does not start a second run.
            self._state = {"state": "busy", "what": "starting", "part": 0}
            self._submitted = fields
            self.cancelled.clear()
            self._changed.notify_all()

    def _cancel(self):
        self.cancelled.set()
        with self._changed:
            self._state["cancelling"] = True

    def _leave(self):
        with self._changed:
            self._left = time.monotonic()


def _handler(form):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if not self._is_ours():
                return
            path, _, query = self.path.partition("?")
            if path == "/" and query.startswith("token="):
                if not form._enter(query[len("token="):]):
                    return self._send(403, b"This address has been used; start the script again.", "text/plain")
                self.send_response(303)
                self.send_header("Location", "/")
                self.send_header("Set-Cookie", f"{COOKIE}={form._cookie}; HttpOnly; SameSite=Strict; Path=/")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if not self._is_allowed():
                return
            if path == "/":
                with open(PAGE, "rb") as page:
                    self._send(200, page.read(), "text/html; charset=utf-8")
            elif path == "/state":
                self._send_json(form._look())
            else:
                self._send(404, b"Not found.", "text/plain")

        def do_POST(self):
            if not self._is_ours() or not self._is_allowed():
                return
            if self.headers.get("Origin") != f"http://{form._host}":
                return self._send(403, b"Not from this page.", "text/plain")
            try:
                length = int(self.headers.get("Content-Length") or 0)
            except ValueError:
                length = -1
            if not 0 <= length <= LARGEST_REQUEST:
                return self._send(413, b"Too large.", "text/plain")
            body = self.rfile.read(length)
            if self.path == "/submit":
                try:
                    fields = json.loads(body)
                except ValueError:
                    fields = None
                if not isinstance(fields, dict):
                    return self._send(400, b"Not a form.", "text/plain")
                form._submit(fields)
            elif self.path == "/cancel":
                form._cancel()
            elif self.path == "/leave":
                form._leave()
            else:
                return self._send(404, b"Not found.", "text/plain")
            self._send_json({})

        def _is_ours(self):
            if self.headers.get("Host") == form._host:
                return True
            self._send(403, b"Wrong host.", "text/plain")
            return False

        def _is_allowed(self):
            try:
                cookie = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
            except CookieError:
                cookie = None
            if cookie and secrets.compare_digest(cookie.value.encode(), form._cookie.encode()):
                return True
            self._send(403, b"Open the address that the script gave.", "text/plain")
            return False

        def _send_json(self, value):
            self._send(200, json.dumps(value).encode(), "application/json")

        def _send(self, status, body, kind):
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("Referrer-Policy", "same-origin")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Security-Policy",
                             "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
                             "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler
