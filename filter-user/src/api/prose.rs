//! docs/API.md: what stands there beside what the OpenAPI document says.

pub(super) const FIRST_STEPS: &str = "\
```
curl --unix-socket /run/keyfence/api.sock http://keyfence/v1/status
curl --unix-socket /run/keyfence/api.sock -X PUT http://keyfence/v1/bindings/key-1 -H 'Content-Type: application/json' \\
     -d '{\"sources\": [\"198.51.100.7\"], \"services\": [\"payments\"], \"lease_seconds\": 3600}'
```

Who may ask is told by the listener's `roles`, and for bindings by who the caller is: a `[[publisher]]` of the policy sees
and touches its own; one of `[daemon] operators`, on a listener with the role `operate`, all, and names one with
`?publisher=NAME`. A lost answer to a change means unknown: repeat it, each is the same when it is made twice.
";

pub(super) const DETACHED: &str = "
## While the filter is detached

From the moment on that somebody takes the filter off (`keyfence detach`), `/readyz` answers 503 and says so, until the
daemon is started again; meanwhile every packet passes. What lets nobody in is taken, stored and audited: a DELETE of a
binding, a deny and its end are answered 200 with a `warning`. They hold for packets from the next start on, and for
authorize, which goes on, at once. What lets somebody in (a PUT, a renewal, a full sync) is 503 `unavailable`: nothing was
done.
";

pub(super) const RESTARTED: &str = "
## While the daemon is restarted

The service of the package keeps the listeners' sockets over a restart or an upgrade: who connects meanwhile waits for the new
daemon, and no authorize request fails for it. A daemon that was started by hand, or in a container, has no service manager
to keep them: its sockets are gone until the next one listens, and a new connection fails. To nginx that is a failed
sub-request, which it answers with 500.

In both cases a request whose head was read is answered, with `Connection: close`, and what it changed is durable. A kept
connection on which nothing is under way is closed without a byte: a client repeats on a new one what it sent into that. A
batch is cut after a few seconds, without its summary; the lines that were decided by then are durable. 503 `draining` is for
changes that come in between.
";
