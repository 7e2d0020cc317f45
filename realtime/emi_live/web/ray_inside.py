"""What Ray Serve has no public way for, each in one function: found in Ray 2.60, refused where it is missing.

- A replica's port for calls of others is open on all addresses of the machine (`bind_to_own_address`).
- A replica is not told that it is to end (`before_end`).
- Nobody can ask where Serve listens (`where_serve_listens`).
- Who deploys an application again leaves no trace that who deployed it first could see (`read_note`).
- A deployment that has begun cannot be taken back (`parts_of`, `deploy_parts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from emi_live.errors import StageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ray.serve.config import HTTPOptions

__all__ = [
    "before_end",
    "bind_to_own_address",
    "deploy_parts",
    "drop_notes",
    "own_port",
    "parts_of",
    "read_note",
    "read_notes",
    "where_serve_listens",
    "write_note",
]

NAMESPACE: Final = "emi-live"  # of the notes, in the cluster's table of keys and values
ANSWER_S: Final = 20.0  # for Ray's controller, which is started again when it has died


def bind_to_own_address() -> None:
    """Have Ray Serve take calls on this machine's address in the cluster alone, which is loopback for `auto`.

    Each replica has a port for the calls of others, on all addresses of the machine, without a setting. A
    constructor of a deployment calls this, before the port is opened.

    Raises:
        StageError: this release of Ray opens the port in another way.
    """
    import ray.util
    from ray.serve._private import replica

    opens = getattr(replica, "add_port_to_grpc_server", None)
    if opens is None:
        raise StageError("Ray Serve would listen on all addresses: install the release in uv.lock")
    own = ray.util.get_node_ip_address()
    replica.add_port_to_grpc_server = lambda server, _: opens(server, f"{own}:0")


def own_port() -> str:
    """`HOST:PORT` of Ray on this machine, which all machines of the cluster can reach."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    node = next(node for node in ray.nodes() if node["NodeID"] == own)
    return f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}"


def before_end(do: Callable[[], Awaitable[None]]) -> None:
    """Have `do` awaited when Ray ends this replica, before Ray counts the requests that it waits for.

    Ray sends no more requests here by then. `do` runs in Ray's event loop, not in that of the application.

    Raises:
        StageError: this release of Ray ends replicas in another way.
    """
    from ray.serve._private import replica

    ends: Any = getattr(getattr(replica, "Replica", None), "perform_graceful_shutdown", None)
    if ends is None:
        raise StageError("Ray Serve would end a replica without a word: install the release in uv.lock")

    async def end(self: Any) -> None:
        await do()
        await ends(self)

    replica.Replica.perform_graceful_shutdown = end


def where_serve_listens() -> HTTPOptions | None:
    """Address and certificate of Ray Serve on the cluster; None: it does not run there."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    return None if client is None else client.http_config


def parts_of(app: str) -> list[bytes]:
    """What Ray's controller runs as this application, for `deploy_parts`: one part for each deployment.

    Raises:
        StageError: this release of Ray keeps it in another way, or its controller does not answer.
    """
    from ray import serve
    from ray.serve.generated import serve_pb2

    parts = []
    for name in serve.status().applications[app].deployments:
        route = serve_pb2.DeploymentRoute.FromString(_ask("get_deployment_info", name, app))
        info, config = route.deployment_info, route.deployment_info.deployment_config
        config.version = info.version  # by which Ray knows the replicas that run already
        part = serve_pb2.DeploymentArgs(
            deployment_name=name,
            deployment_config=config.SerializeToString(),
            replica_config=info.replica_config.SerializeToString(),
            deployer_job_id=_job(),
            ingress=bool(route.route),
        )
        if route.route:
            part.route_prefix = route.route
        parts.append(part.SerializeToString())
    return parts


def deploy_parts(app: str, parts: list[bytes]) -> None:
    """Have Ray run this application again as it was; replicas of it that run stay, all others end.

    Returns when the controller has been told, not when it is done.

    Raises:
        StageError: as `parts_of`.
    """
    from ray.serve.generated import serve_pb2

    _ask("deploy_applications", {app: parts}, {app: serve_pb2.ApplicationArgs().SerializeToString()})


def _ask(method: str, *arguments: Any) -> Any:
    import ray
    from ray.serve.context import _get_global_client

    try:
        controller = _get_global_client()._controller
        return ray.get(getattr(controller, method).remote(*arguments), timeout=ANSWER_S)
    except Exception as error:  # whatever Ray raises
        raise StageError(f"Ray's controller does not take {method}: {error}") from error


def _job() -> str:
    import ray

    job: str = ray.get_runtime_context().get_job_id()
    return job


def read_note(key: str) -> bytes | None:
    """What the cluster keeps under this key, until its head ends."""
    from ray.experimental import internal_kv

    found: bytes | None = internal_kv._internal_kv_get(key, namespace=NAMESPACE)
    return found


def write_note(key: str, value: bytes) -> None:
    """Have the cluster keep it."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_put(key, value, overwrite=True, namespace=NAMESPACE)


def read_notes(prefix: str) -> list[bytes]:
    """What the cluster keeps under all keys that begin so."""
    from ray.experimental import internal_kv

    keys = internal_kv._internal_kv_list(prefix, namespace=NAMESPACE)
    found = (internal_kv._internal_kv_get(key, namespace=NAMESPACE) for key in keys)
    return [note for note in found if note is not None]


def drop_notes(prefix: str) -> None:
    """Have the cluster forget what it keeps under keys that begin so."""
    from ray.experimental import internal_kv

    internal_kv._internal_kv_del(prefix, del_by_prefix=True, namespace=NAMESPACE)
