"""A token that cannot be printed. Standard library only."""

from __future__ import annotations

import hmac

from twin.errors import ConfigError


class Secret:
    """A bearer token. It has no readable form but the one request header."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        if not text or not text.isascii() or not text.isprintable() or " " in text:
            # The token itself must not be quoted here.
            raise ConfigError(
                "token: expected printable ASCII characters without blanks. "
                "Make one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`."
            )
        self._text = text

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a Secret is not written anywhere; make it anew from where it is kept.")

    def __len__(self) -> int:
        return len(self._text)

    @property
    def header(self) -> str:
        """The value of the Authorization header. Never bind it to a name."""
        return f"Bearer {self._text}"

    def matches(self, header: str) -> bool:
        """Whether an Authorization header carries this token, in constant time."""
        return hmac.compare_digest(header.encode("utf-8", "replace"), self.header.encode())


def secret(token: str | Secret | None) -> Secret | None:
    """`token` as a Secret, None if there is none."""
    return token if token is None or isinstance(token, Secret) else Secret(token)
