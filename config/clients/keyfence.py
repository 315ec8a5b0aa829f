"""Pushes an API server's keys to Keyfence: a whole set, then renewals, and a watch that notices what others change.

An example, of the standard library alone. Run it beside the API, as the user that the policy names as publisher:

    client = Keyfence("/run/keyfence/api.sock")
    follower = Follower(client, rows)        # rows() gives {credential: binding without its lease}
    follower.run()
"""

import http.client
import json
import random
import socket
import time
import urllib.parse


class Problem(Exception):
    """A refusal: `status`, `code` and the whole document (RFC 9457)."""

    def __init__(self, status, document):
        super().__init__(f"{status} {document.get('code')}: {document.get('detail')}")
        self.status = status
        self.code = document.get("code")
        self.document = document


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__("keyfence", timeout=timeout)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Keyfence:
    """One daemon, by its Unix socket. Each call is a connection of its own, so it may be shared between threads."""

    def __init__(self, path, publisher=None, timeout=30):
        self._path = path
        self._publisher = publisher
        self._timeout = timeout

    def put(self, credential, binding):
        """Puts or renews one binding; durable and in force when it returns."""
        return self._json("PUT", self._of(credential), binding)

    def delete(self, credential, row_version=None):
        return self._json("DELETE", self._of(credential, row_version=row_version))

    def list(self, **conditions):
        """The first page's revision and store, and all bindings. Pages are no snapshot: watch from that revision."""
        items, after, first = [], None, None
        while True:
            page = self._json("GET", self._url("/v1/bindings", after=after, **conditions))
            first = first or page
            items += page["items"]
            after = page.get("next")
            if after is None:
                return first["revision"], first["store"], items

    def now(self):
        """The revision and the store as of now."""
        page = self._json("GET", self._url("/v1/bindings", limit=1))
        return page["revision"], page["store"]

    def sync(self, bindings, as_of=None, revoke_max=None, dry_run=None):
        """Makes `bindings` (credential: binding) the publisher's whole set, or changes nothing.

        `as_of` is the revision before the rows were read: what another wrote after it is kept.
        """

        def lines():
            count = 0
            for credential, binding in bindings.items():
                count += 1
                yield _line({"credential": credential, **binding})
            # Without it nothing is done: a stream that was cut must not revoke anybody.
            yield _line({"op": "end", "count": count})

        url = self._url("/v1/bindings", as_of=as_of, revoke_max=revoke_max, dry_run=dry_run)
        return self._lines("PUT", url, lines())[-1]["summary"]

    def batch(self, operations):
        """Does what it can of `operations`; returns the failures and the summary."""

        def lines():
            count = 0
            for operation in operations:
                count += 1
                yield _line(operation)
            yield _line({"op": "end", "count": count})

        *failures, last = self._lines("POST", self._url("/v1/bindings/batch"), lines())
        return failures, last["summary"]

    def watch(self, since=None, store=None, renewals=None):
        """Events as they come, heartbeats included. Problem 410: list again."""
        response, connection = self._send("GET", self._url("/v1/watch", since=since, store=store, renewals=renewals))
        try:
            for line in response:
                yield json.loads(line)
        finally:
            connection.close()

    def _of(self, credential, **parameters):
        return self._url("/v1/bindings/" + urllib.parse.quote(credential, safe=""), **parameters)

    def _url(self, path, **parameters):
        parameters["publisher"] = self._publisher
        given = {name: str(value).lower() if isinstance(value, bool) else value
                 for name, value in parameters.items() if value is not None}
        return path + ("?" + urllib.parse.urlencode(given, quote_via=urllib.parse.quote) if given else "")

    def _send(self, method, url, body=None, kind="application/json"):
        connection = _UnixConnection(self._path, self._timeout)
        headers = {"Content-Type": kind} if body is not None else {}
        try:
            # A generator goes out in chunks: it is never held whole.
            connection.request(method, url, body=body, headers=headers,
                               encode_chunked=body is not None and not isinstance(body, bytes))
        except (BrokenPipeError, ConnectionResetError):
            pass  # It was refused before all of it was sent: the answer says why.
        response = connection.getresponse()
        if response.status not in (200, 201):
            text = response.read()
            connection.close()
            raise Problem(response.status, json.loads(text))
        return response, connection

    def _json(self, method, url, body=None):
        response, connection = self._send(method, url, None if body is None else json.dumps(body).encode())
        try:
            return json.loads(response.read())
        finally:
            connection.close()

    def _lines(self, method, url, body):
        response, connection = self._send(method, url, body, "application/x-ndjson")
        try:
            return [json.loads(line) for line in response]
        finally:
            connection.close()


def _line(value):
    return json.dumps(value).encode() + b"\n"


class Follower:
    """Keeps the daemon at what `rows` says: a full sync, renewals in time, and a new one when the watch is too old."""

    def __init__(self, client, rows, lease_seconds=3600, patience=1.0):
        self.client = client
        self.rows = rows
        self.lease_seconds = lease_seconds
        self.patience = patience
        self.store = None
        self.revision = None

    def start(self):
        """Reads the rows and makes them the whole set; what was written meanwhile is kept."""
        as_of, self.store = self.client.now()
        bindings = {credential: {**row, "lease_seconds": self.lease_seconds} for credential, row in self.rows().items()}
        summary = self.client.sync(bindings, as_of=as_of)
        self.revision = as_of
        return summary

    def next_renewal(self, now):
        """When to renew: after a third of the lease, spread by a tenth, so that servers do not come at one time."""
        return now + self.lease_seconds / 3 * random.uniform(0.9, 1.1)

    def renew(self):
        lease = {"op": "renew", "lease_seconds": self.lease_seconds}
        failures, _ = self.client.batch({**lease, "credential": credential} for credential in self.rows())
        # What is not there any more was revoked, or its store restored: the next sync decides.
        return [failure["credential"] for failure in failures]

    def follow(self, changed, until=lambda: False):
        """Watches from the last sync on, and tells each change; returns when it has to start again, or may end."""
        due = self.next_renewal(time.monotonic())
        try:
            for line in self.client.watch(since=self.revision, store=self.store):
                if "error" in line:
                    return
                if "event" in line:
                    self.revision = line["revision"]
                    changed(line)
                if time.monotonic() >= due:
                    if self.renew():
                        return
                    due = self.next_renewal(time.monotonic())
                if until():
                    return
        except Problem as problem:
            if problem.status != 410:
                raise
            # Too old, or another store: forget what was seen, and list again.
            self.revision = self.store = None

    def run(self, changed=lambda line: None, until=lambda: False):
        while not until():
            try:
                self.start()
                self.follow(changed, until)
            except (OSError, http.client.HTTPException):
                time.sleep(self.patience * random.uniform(0.5, 1.5))
            except Problem as problem:
                if problem.status not in (429, 503):
                    raise
                time.sleep(self.patience * random.uniform(0.5, 1.5))
