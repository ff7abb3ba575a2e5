"""How a rank reaches rank 0's store: it knocks where it may be until the right one opens."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.rendezvous.endpoint import Endpoint
from hvdtools.rendezvous.membership import Member
from hvdtools.rendezvous.scope import BOOK, DOOR, ENTRY, OPEN, SHUT, scope_of, wait_a_little

_ANSWER_S = 3.0  # for one request: a packet that a firewall drops is never answered
_GONE_S = 5.0  # rank 0 has ended if its store has not answered for so long


@dataclass(frozen=True)
class Contact:
    """A store that opened its door.

    Attributes:
        via: The IPv4 address that answered.
        own: This host's address that the connection left from.
        scope: The folder of the store in which this job's ranks introduce themselves.
    """

    via: str
    own: str
    port: int
    scope: str


def find(
    look: Callable[[], Iterable[Endpoint]],
    number: int,
    timeout_s: float,
    longest_pause_s: float,
) -> tuple[Contact, Endpoint]:
    """Knock at every offer until rank 0's store opens; the contact, and the offer that was it.

    Args:
        look: What may be rank 0; asked again in every round.
        number: As in `scope_of`.

    Raises:
        HvdtoolsError: It did not in `timeout_s`; the sentence says what was tried.
    """
    end, pause_s = time.monotonic() + timeout_s, 0.01
    tried: dict[str, str] = {}
    while True:
        for offer in look():
            for address in offer.addresses:
                result = probe(address, offer.port, scope_of(offer.token, number))
                if isinstance(result, Contact):
                    return result, offer
                tried[f"{address}:{offer.port}"] = result
        if time.monotonic() > end:
            raise HvdtoolsError(_unreachable(tried, timeout_s))
        pause_s = wait_a_little(pause_s, longest_pause_s)


def _unreachable(tried: dict[str, str], timeout_s: float) -> str:
    if not tried:
        return f"Rank 0 did not say within {timeout_s:g} s where it listens: see whether it runs."
    shown = [f"{place} ({why})" for place, why in tried.items()]
    more = f" and {len(shown) - 4} more" if len(shown) > 4 else ""
    return (
        f"Rank 0 did not answer within {timeout_s:g} s; tried {', '.join(shown[:4])}{more}: see "
        "whether rank 0 runs, name the network interface between the hosts with "
        "HVDTOOLS_INTERFACE, and let its ports through the firewall (HVDTOOLS_RENDEZVOUS="
        "host:port fixes the port)."
    )


def probe(address: str, port: int, scope: str, timeout_s: float = _ANSWER_S) -> Contact | str:
    """The contact, or what is wrong there."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.connect()
        via, own = connection.sock.getpeername()[0], connection.sock.getsockname()[0]
        connection.request("GET", f"/{scope}/{DOOR}")
        answer = connection.getresponse()
        word = answer.read(len(OPEN) + 1)
    except TimeoutError:
        return "no answer"
    except (OSError, http.client.HTTPException) as error:
        return getattr(error, "strerror", None) or "another program"
    finally:
        connection.close()
    if answer.status == 200 and word == OPEN:
        return Contact(via, own, port, scope)
    return "a start that is complete" if word == SHUT else "another job or program"


def introduce(contact: Contact, member: Member) -> None:
    """Write `member` into rank 0's list.

    Raises:
        HvdtoolsError: Rank 0 has ended.
    """
    key = f"{ENTRY}{member.rank}.{member.nonce}"
    _insist(contact, "PUT", key, json.dumps(asdict(member)).encode())


def read_membership(contact: Contact, timeout_s: float, longest_pause_s: float) -> dict[str, Any]:
    """Wait until rank 0 shows the book.

    Raises:
        HvdtoolsError: Rank 0 has ended, or stays without a word for `timeout_s`.
    """
    end, pause_s = time.monotonic() + timeout_s, 0.002
    while time.monotonic() < end:
        text = _insist(contact, "GET", BOOK, None)
        if text is not None:
            book: dict[str, Any] = json.loads(text)
            return book
        pause_s = wait_a_little(pause_s, longest_pause_s)
    raise HvdtoolsError(
        f"Rank 0 at {contact.via}:{contact.port} answers but has not met all ranks in "
        f"{timeout_s:g} s: see what its process does."
    )


def _insist(contact: Contact, method: str, key: str, body: bytes | None) -> bytes | None:
    """What the store answers, or None if it has no such key; a lost packet is sent again."""
    end, pause_s = time.monotonic() + _GONE_S, 0.05
    while True:
        connection = http.client.HTTPConnection(contact.via, contact.port, timeout=_ANSWER_S)
        try:
            connection.request(method, f"/{contact.scope}/{key}", body)
            answer = connection.getresponse()
            return answer.read() if answer.status == 200 else None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > end:
                raise HvdtoolsError(
                    f"Rank 0 at {contact.via}:{contact.port} has gone while ranks met ({error}): "
                    "see its last lines."
                ) from None
        finally:
            connection.close()
        pause_s = wait_a_little(pause_s, 0.5)
