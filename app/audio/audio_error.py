"""The exception for audio that cannot be used. Worker thread."""

from __future__ import annotations

from app.messages import Failure


class AudioError(Exception):
    """The audio cannot be used; `failure` has the protocol's code and message."""

    def __init__(
        self,
        code: str,
        message: str,
        retry_after: float | None = None,
        unrecognised: bool = False,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(code, message, retry_after, unrecognised)
