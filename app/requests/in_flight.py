"""A request from its header to its outcome, as the stages of the loop thread hand it on."""

from __future__ import annotations

from dataclasses import dataclass

from app.messages import Origin, Request
from app.requests.client import Client


@dataclass(slots=True, eq=False)
class InFlight:
    """`number` is unique, and is the number of the worker's job as well."""

    number: int
    request: Request
    origin: Origin
    client: Client
