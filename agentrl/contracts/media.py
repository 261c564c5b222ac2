"""Images and videos of a dialogue, known by the digest of their bytes."""

import base64
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

MediaKind = Literal["image", "video"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """One image or video. Equal digests are equal media; traces keep the digest alone."""

    kind: MediaKind
    digest: str
    data: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def of(cls, kind: MediaKind, data: bytes) -> Self:
        """Return the medium with these encoded bytes (PNG, JPEG, MP4, ...)."""
        return cls(kind=kind, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", data=data)

    @classmethod
    def read(cls, kind: MediaKind, value: Any) -> Self:
        """Read what rows, messages and tools hold: bytes, a path, a `data:` URL, a PIL image.

        A mapping holds one of these as `bytes`, `path`, `url`, or by the kind's name.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is none of these.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Mapping):
            keys = ("bytes", "path", "url", kind, f"{kind}_url")
            return cls.read(kind, next((value[key] for key in keys if value.get(key)), None))
        if isinstance(value, bytes | bytearray):
            return cls.of(kind, bytes(value))
        if isinstance(value, str) and value.startswith("data:"):
            return cls.of(kind, base64.b64decode(value.partition(",")[2], validate=True))
        if isinstance(value, str | Path) and not str(value).startswith(("http://", "https://")):
            return cls.of(kind, Path(str(value).removeprefix("file://")).read_bytes())
        if type(value).__module__.startswith("PIL."):
            encoded = io.BytesIO()
            value.save(encoded, format="PNG")
            return cls.of(kind, encoded.getvalue())
        raise ValueError(
            f"expected the {kind} as bytes, a path, a data: URL or a PIL image, "
            f"got {str(value)[:80] if isinstance(value, str) else type(value).__name__}"
        )
