"""How pycaffe comes to a Ray cluster: starts a small one on this machine, or joins one by its address.

    connect(None)        ─→ RAY_ADDRESS is set: join that; else start Ray here, for as long as somebody needs it
    connect("host:port") ─→ somebody listens there? ─→ a process of its own tries to join ─→ this process joins
    check_nodes(paths)   ─→ a task on every node: versions, and whether the files are there

What Ray does by itself with an address where nothing is, or with a wrong token, is to wait for up to 80 s, without
listening to signals, and to write to stderr from C++; hence the process that tries first: it can be read, and killed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pycaffe.cluster.session_guard import SessionGuard
from pycaffe.errors import ClusterError, MissingExtra
from pycaffe.threads import available_cores

__all__ = [
    "Connection",
    "NodeFacts",
    "check_nodes",
    "connect",
    "full_store",
    "full_store_errors",
    "load_ray",
    "look_here",
    "put",
    "unfit",
]

JOIN_SECONDS = 20  # for the process that tries to join; it takes 2 s where all is well
TCP_SECONDS = 5
NODE_SECONDS = 20  # a node answers the question about its versions within it
# Of the object store of a cluster that is started here; memory is taken only for what lies in it. CaffeNet's messages
# (244 MB each) do not fit into the least: what goes to disk made its steps 4 times as long.
LEAST_STORE, MOST_STORE = 512 << 20, 4 << 30

logger = logging.getLogger("pycaffe.cluster")
_lock = threading.RLock()  # the garbage collector may close a connection in the middle of all this
_users = 0
_joined_here = False  # by this module, not by the user
_started_here = False
_guard: SessionGuard | None = None  # of what was started here


def load_ray() -> Any:
    """The module `ray`, told not to report anybody's use of it.

    Raises:
        MissingExtra: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray warns on stderr unless one chooses
    try:
        import ray
    except ImportError as error:
        raise MissingExtra.of("ray", "cluster", "Work on a cluster") from error
    return ray


class Connection:
    """Holds this process in a cluster, until the last one is closed; where the user has joined it, beyond that.

    Attributes:
        ray: the module.
        address: of the cluster's head, "host:port".
        started: whether Ray was started here for this process.
    """

    def __init__(self, ray: Any, started: bool) -> None:
        self.ray = ray
        self.started = started
        self.address: str = ray.get_runtime_context().gcs_address
        self._finalizer = weakref.finalize(self, _leave, ray)  # also where it is forgotten
        self._finalizer.atexit = False  # Ray sees to that itself

    def close(self) -> None:
        """Leaves. Repeatable."""
        self._finalizer()

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def connect(address: str | None = None, *, cpus: int | None = None) -> Connection:
    """Joins the cluster at an address, or starts Ray on this machine.

    Where this process is in a cluster already, it is that one.

    Args:
        address: "host:port" of the head; "auto" for the one that runs on this machine; None for the environment's
            RAY_ADDRESS, and where there is none for a Ray of this process's own.
        cpus: how many CPUs a Ray that is started here says it has, if more than this machine's.

    Raises:
        MissingExtra: Ray is not installed.
        ClusterError: nothing answers at the address, it asks for another token, or has another version of Ray or
            Python; or this process is in another cluster.
    """
    global _users, _joined_here, _started_here, _guard
    ray = load_ray()
    address = address if address is not None else os.environ.get("RAY_ADDRESS") or None
    with _lock:
        if ray.is_initialized():
            _check_same(ray, address)
        elif address is None:
            _start(ray, max(available_cores(), cpus or 0))
            _guard = SessionGuard(ray)
            _joined_here = _started_here = True
        else:
            _check_reachable(address)
            _check_joins(address)
            _join(ray, address)
            _joined_here = True
        _users += 1
        return Connection(ray, _started_here)


def put(ray: Any, value: object, what: str) -> Any:
    """A reference to a value in the object store.

    Raises:
        ClusterError: it has no room, nor has the disk to which it spills.
    """
    try:
        return ray.put(value)
    except full_store_errors(ray) as error:
        raise full_store(what, error) from error


def full_store_errors(ray: Any) -> tuple[type[Exception], ...]:
    """What Ray raises where a value finds no room."""
    return ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError


def full_store(what: str, error: BaseException) -> ClusterError:
    """The error for a value that found no room."""
    first = str(getattr(error, "cause", error)).strip().split("\n")[0]
    return ClusterError(
        f"The object store is full: no room for {what}. Ray says: {first.rstrip('.')}. "
        "Give each node more with `ray start --object-store-memory BYTES`, or free disk space where it spills."
    )


# -- nodes


@dataclass(frozen=True)
class NodeFacts:
    """What a node says about itself: its host, versions, and those of the asked paths that are not there."""

    host: str
    versions: Mapping[str, str]
    missing: Sequence[str]


def look_here(paths: Sequence[str] = ()) -> NodeFacts:
    """The facts of the machine and interpreter that this runs in."""
    versions = {"pycaffe": metadata.version("pycaffe"), "ray": load_ray().__version__, "Python": _python()}
    return NodeFacts(socket.gethostname(), versions, [path for path in paths if not os.path.exists(path)])


def unfit(node: NodeFacts, wanted: Mapping[str, str]) -> str | None:
    """Why a node cannot take part; None if it can."""
    for name, version in wanted.items():
        if node.versions[name] != version:
            return (
                f"Version mismatch: node {node.host!r} has {name} {node.versions[name]}. Expected {version}, as here. "
                "Install the same on all nodes."
            )
    if node.missing:
        return (
            f"Node {node.host!r} has no {', '.join(map(repr, node.missing))}. "
            "The same path has to lead to the data on every node: use a shared file system or copy it there."
        )
    return None


def check_nodes(connection: Connection, paths: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Makes sure that every node has this one's versions, and files at these paths.

    Raises:
        ClusterError: a node does not, or does not answer. Says which.
    """
    ray = connection.ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    names = [os.path.abspath(path) for path in paths]

    def look() -> Any:  # nested, so that it travels by value: pycaffe may be missing there
        try:
            from pycaffe.cluster.connection import look_here
        except ImportError as error:
            return str(error)
        return look_here(names)

    task = ray.remote(num_cpus=0, max_retries=0)(look)
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[task.options(scheduling_strategy=strategy).remote()] = node["NodeManagerHostname"]
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_SECONDS)
    wanted = look_here().versions
    reasons = [f"Node {asked[ref]!r} does not answer within {NODE_SECONDS} s." for ref in silent]
    for ref in answered:
        try:
            facts = ray.get(ref)
        except ray.exceptions.RayError as error:
            reasons.append(f"Node {asked[ref]!r} cannot run a task: {error}")
            continue
        if isinstance(facts, str):
            reasons.append(f"Node {asked[ref]!r} has no pycaffe: {facts}. Install the same version on all nodes.")
        elif reason := unfit(facts, wanted):
            reasons.append(reason)
    if reasons:
        raise ClusterError("\n".join(reasons))


# -- inside


def _leave(ray: Any) -> None:
    global _users, _joined_here, _started_here, _guard
    with _lock:
        _users -= 1
        if _users == 0 and _joined_here:
            _joined_here = _started_here = False
            ray.shutdown()
            if _guard is not None:
                _guard.close()
                _guard = None


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])


def _check_same(ray: Any, address: str | None) -> None:
    here = ray.get_runtime_context().gcs_address
    if address in (None, "auto", here) or _place(str(address)) == _place(here):
        return
    raise ClusterError(
        f"This process is in the Ray cluster at {here!r} already and cannot join {address!r} too. "
        "Leave that one first: close its pools, or call ray.shutdown()."
    )


def _place(address: str) -> tuple[str, str]:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        host = socket.gethostbyname(host)
    own = socket.gethostname()
    with contextlib.suppress(OSError):
        if host.startswith("127.") or host == socket.gethostbyname(own):
            host = own
    return host, port


def _start(ray: Any, cpus: int) -> None:
    _print_nothing()
    try:
        with _own_signals(), _silent():
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=_store_bytes(),
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                configure_logging=False,
            )
    except Exception as error:
        raise ClusterError(f"Ray does not start on this machine: {_told(error)}") from error


def _store_bytes() -> int:
    """Half of what shared memory has left, between two bounds."""
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:  # not on Linux
        return LEAST_STORE
    return min(max(free // 2, LEAST_STORE), MOST_STORE)


def _join(ray: Any, address: str) -> None:
    _print_nothing()
    try:
        with _own_signals(), _silent():
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, configure_logging=False)
    except Exception as error:
        raise _refusal(address, _told(error)) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """`ray.init` takes over SIGTERM, and what a command does at it is the command's affair."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without what Ray logs about a cluster that has a token."""
    rays = logging.getLogger("ray")
    level = rays.level
    rays.setLevel(logging.ERROR)
    try:
        yield
    finally:
        rays.setLevel(level)


def _print_nothing() -> None:
    """Ray prints what its nodes report, such as a dead worker, on standard output, in the middle of users' results."""
    from ray._private import worker

    def log(data: Mapping[str, Any], **options: object) -> None:
        logger.info("Ray: %s", "\n".join(map(str, data.get("lines", ()))))

    if hasattr(worker, "print_to_stdstream"):  # no option of Ray's switches it off
        worker.print_to_stdstream = log


def _check_reachable(address: str) -> None:
    """That somebody listens at "host:port"."""
    if address == "auto" or "://" in address:
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ClusterError(f"{address!r} is not the address of a Ray cluster. Expected 'host:port', or 'auto'.")
    try:
        socket.create_connection((host, int(port)), TCP_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(
            f"No Ray cluster at {address!r}: {error}. `ray start --head --port={port}` on {host!r} starts one."
        ) from error


_TRY = "import sys, ray; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False); print('joined')"


def _check_joins(address: str) -> None:
    """That a process can join: tried by one that may be killed."""
    environment = {**os.environ, "RAY_gcs_server_request_timeout_seconds": str(JOIN_SECONDS // 2)}
    with subprocess.Popen(
        [sys.executable, "-c", _TRY, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
    ) as process:
        timer = threading.Timer(JOIN_SECONDS, process.kill)
        timer.start()
        try:
            told = _read_until(process.stdout or (), lambda line: "joined" in line or "InvalidAuthToken" in line)
        finally:
            timer.cancel()
            process.kill()
    if not told or "joined" not in told[-1]:
        raise _refusal(address, "".join(told))


def _read_until(lines: Iterable[str], last: Callable[[str], bool]) -> list[str]:
    read = []
    for line in lines:
        read.append(line)
        if last(line):
            break
    return read


def _refusal(address: str, told: str) -> ClusterError:
    """Why the cluster at an address could not be joined, from what Ray said."""
    mode, token = os.environ.get("RAY_AUTH_MODE"), _token_source()
    if "InvalidAuthToken" in told or "no authentication token" in told:
        if token is None:
            state = "This process has none."
        elif (mode or "").lower() != "token":
            state = f"This process has one ({token}), but RAY_AUTH_MODE is {mode!r}."
        else:
            state = f"That of this process ({token}) is another one."
        return ClusterError(
            f"The Ray cluster at {address!r} asks for a token. {state} Set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to "
            "what `ray get-auth-token` prints on the head node; see docs/cluster.md."
        )
    if "Version mismatch" in told:
        mismatch = told[told.index("Version mismatch") :].strip()
        return ClusterError(f"The Ray cluster at {address!r} has other versions. {mismatch}")
    if address == "auto":
        return ClusterError(
            "No Ray cluster runs on this machine. `ray start --head` starts one; so does no address at all."
        )
    if "No node info found" in told or "Could not find any running" in told or "raylet" in told.lower():
        return ClusterError(
            f"This machine is no node of the Ray cluster at {address!r}. "
            f"`ray start --address={address} --num-cpus=0` makes it one that only asks. Ray says: {_last_line(told)}"
        )
    said = f"Ray says: {_last_line(told)}" if told.strip() else f"It does not answer within {JOIN_SECONDS} s."
    return ClusterError(f"No Ray cluster at {address!r}. {said}")


def _token_source() -> str | None:
    """Where Ray finds a token, in its order."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "RAY_AUTH_TOKEN"
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return path
    path = os.path.join(os.path.expanduser("~"), ".ray", "auth_token")
    return path if os.path.exists(path) else None


def _last_line(text: str) -> str:
    return text.strip().split("\n")[-1]


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
