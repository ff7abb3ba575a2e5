"""How a rank finds and uses rank 0's store: it probes candidates until one accepts it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.rendezvous.membership import Member
from hvdtools.rendezvous.protocol import (
    CLOSED,
    MEMBER,
    MEMBERSHIP,
    OPEN,
    STATE,
    Endpoint,
    back_off,
    scope_name,
)

_REQUEST_TIMEOUT_S = 3.0  # a packet that a firewall drops is never answered
_RETRY_S = 5.0  # rank 0 has ended if its store has not answered for this long


@dataclass(frozen=True)
class Connection:
    """A store that has accepted this rank.

    Attributes:
        via: The store's IPv4 address.
        source: This host's address on the connection.
        scope: The store's scope for this start of this job.
    """

    via: str
    source: str
    port: int
    scope: str


def connect(
    candidates: Callable[[], Iterable[Endpoint]],
    start: int,
    timeout_s: float,
    longest_pause_s: float,
) -> tuple[Connection, Endpoint]:
    """Probe every candidate until rank 0's store accepts; the connection and its endpoint.

    Args:
        candidates: Where rank 0 may listen; called again in every round.
        start: As in `scope_name`.

    Raises:
        HvdtoolsError: None has accepted within `timeout_s`; the message lists what was tried.
    """
    end, pause_s = time.monotonic() + timeout_s, 0.01
    tried: dict[str, str] = {}
    while True:
        for endpoint in candidates():
            for address in endpoint.addresses:
                result = probe(address, endpoint.port, scope_name(endpoint.token, start))
                if isinstance(result, Connection):
                    return result, endpoint
                tried[f"{address}:{endpoint.port}"] = result
        if time.monotonic() > end:
            raise HvdtoolsError(_unreachable(tried, timeout_s))
        pause_s = back_off(pause_s, longest_pause_s)


def _unreachable(tried: dict[str, str], timeout_s: float) -> str:
    if not tried:
        return f"Rank 0 did not publish its address within {timeout_s:g} s: check whether it runs."
    shown = [f"{address} ({reason})" for address, reason in tried.items()]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return (
        f"Rank 0 did not answer within {timeout_s:g} s; tried {', '.join(shown[:4])}{more}: check "
        "whether rank 0 runs, name the network interface between the hosts with "
        "HVDTOOLS_INTERFACE, and let its ports through the firewall (HVDTOOLS_RENDEZVOUS="
        "host:port fixes the port)."
    )


def probe(
    address: str, port: int, scope: str, timeout_s: float = _REQUEST_TIMEOUT_S
) -> Connection | str:
    """The connection, or why there is none."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.connect()
        via, source = connection.sock.getpeername()[0], connection.sock.getsockname()[0]
        connection.request("GET", f"/{scope}/{STATE}")
        response = connection.getresponse()
        state = response.read(len(CLOSED) + 1)
    except TimeoutError:
        return "no answer"
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or "another program"
    finally:
        connection.close()
    if response.status == 200 and state == OPEN:
        return Connection(via, source, port, scope)
    return "a job that is complete" if state == CLOSED else "another job or program"


def register(connection: Connection, member: Member) -> None:
    """Add `member` to rank 0's list.

    Raises:
        HvdtoolsError: Rank 0 has ended.
    """
    key = f"{MEMBER}{member.rank}.{member.nonce}"
    _request(connection, "PUT", key, json.dumps(asdict(member)).encode())


def wait_for_membership(
    connection: Connection, timeout_s: float, longest_pause_s: float
) -> dict[str, Any]:
    """Wait until rank 0 publishes the membership, or an error.

    Raises:
        HvdtoolsError: Rank 0 has ended, or publishes nothing for `timeout_s`.
    """
    end, pause_s = time.monotonic() + timeout_s, 0.002
    while time.monotonic() < end:
        text = _request(connection, "GET", MEMBERSHIP, None)
        if text is not None:
            membership: dict[str, Any] = json.loads(text)
            return membership
        pause_s = back_off(pause_s, longest_pause_s)
    raise HvdtoolsError(
        f"Rank 0 at {connection.via}:{connection.port} answers but has not found all ranks in "
        f"{timeout_s:g} s: check what its process does."
    )


def _request(connection: Connection, method: str, key: str, body: bytes | None) -> bytes | None:
    """The store's answer, or None if it has no such key; a lost packet is sent again."""
    end, pause_s = time.monotonic() + _RETRY_S, 0.05
    while True:
        http_connection = http.client.HTTPConnection(
            connection.via, connection.port, timeout=_REQUEST_TIMEOUT_S
        )
        try:
            http_connection.request(method, f"/{connection.scope}/{key}", body)
            response = http_connection.getresponse()
            return response.read() if response.status == 200 else None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                raise HvdtoolsError(
                    f"Rank 0 at {connection.via}:{connection.port} ended during the rendezvous "
                    f"({error}): see its last lines."
                ) from None
        finally:
            http_connection.close()
        pause_s = back_off(pause_s, 0.5)
