"""Images and videos of a dialogue, known by the digest of their bytes."""

import hashlib
from dataclasses import dataclass, field
from typing import Literal, Self


@dataclass(frozen=True, kw_only=True, slots=True)
class Media:
    """One image or video. Equal digests are equal media; traces keep the digest alone."""

    kind: Literal["image", "video"]
    digest: str
    data: bytes = field(default=b"", repr=False, compare=False)

    @classmethod
    def of(cls, kind: Literal["image", "video"], data: bytes) -> Self:
        """Return the medium with these encoded bytes (PNG, JPEG, MP4, ...)."""
        return cls(kind=kind, digest=f"sha256:{hashlib.sha256(data).hexdigest()}", data=data)
