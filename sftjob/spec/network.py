"""What pods may talk to, where a profile asks for a NetworkPolicy."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field

from sftjob.spec.types import SpecModel


def _cidr(text: str) -> str:
    ipaddress.ip_network(text)  # a ValueError of its own says what is wrong
    return text


Cidr = Annotated[str, Field(max_length=64), AfterValidator(_cidr)]
"""A range of addresses, for instance `10.0.0.0/8`."""
Port = Annotated[int, Field(ge=1, le=65535)]


class Egress(SpecModel):
    """Addresses outside the run that its pods may reach over TCP."""

    cidr: Cidr
    ports: Annotated[tuple[Port, ...], Field(min_length=1)] = (443,)


class NetworkPolicy(SpecModel):
    """Pods of a run reach each other, name resolution, and what is listed here; nothing else reaches them.

    The store's port has to be in the list, and that of the cluster's own API, which the gate needs.
    """

    egress: tuple[Egress, ...] = (Egress(cidr="0.0.0.0/0", ports=(443, 6443)),)
