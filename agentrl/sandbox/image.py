"""The Docker image: found by the digest of the fork server's files, or built.

Built from a public Python base with `sandbox/Dockerfile`; where no registry can be reached, from a
root file system copied from this machine (`host_image`).
"""

import asyncio
import hashlib
import logging
from typing import Any

from agentrl.config.sandbox import DockerOptions
from agentrl.errors import NotReadyError
from agentrl.sandbox.guest import guest_folder
from agentrl.sandbox.host_image import build_from_host

logger = logging.getLogger(__name__)

REPOSITORY = "agentrl-sandbox"
DIGEST_LABEL = "agentrl.sandbox.guest"
GUEST_FILES = ("*.py", "*.json", "Dockerfile")


def guest_digest() -> str:
    """Return twelve hex digits that change whenever a guest file does."""
    digest = hashlib.sha256()
    folder = guest_folder()
    for path in sorted(path for pattern in GUEST_FILES for path in folder.glob(pattern)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def default_tag() -> str:
    """Return the name under which our image is kept."""
    return f"{REPOSITORY}:{guest_digest()}"


async def ensure_image(client: Any, options: DockerOptions) -> str:
    """Return an image that holds today's fork server, building it when there is none.

    Raises:
        NotReadyError: a configured image is missing or out of date, or none can be built.
    """
    import docker.errors

    name = options.image or default_tag()
    try:
        image = await asyncio.to_thread(client.images.get, name)
    except docker.errors.ImageNotFound:
        if options.image is not None:
            raise NotReadyError(
                f"sandbox docker: image {name!r} is not there; pull it, or make it with "
                f"`agentrl sandbox build --tag {name}`"
            ) from None
        return await asyncio.to_thread(_build_somehow, client, options, name)
    if image.labels.get(DIGEST_LABEL) != guest_digest():
        raise NotReadyError(
            f"sandbox docker: image {name!r} holds another version of the fork server; make it "
            f"anew with `agentrl sandbox build --tag {name}`"
        )
    return name


def _build_somehow(client: Any, options: DockerOptions, name: str) -> str:
    try:
        build_from_base(client, options.base_image, name)
    except NotReadyError as error:
        logger.warning("%s; copying this machine's Python instead", error)
        build_from_host(client, name, {DIGEST_LABEL: guest_digest()})
    return name


def build_from_base(client: Any, base: str, name: str) -> None:
    """Build the image from a public base with the Dockerfile.

    Raises:
        NotReadyError: the build failed; the message ends with its last lines.
    """
    import docker.errors
    import requests

    logger.info("building the sandbox image %s from %s", name, base)
    try:
        client.images.build(
            path=str(guest_folder()),
            tag=name,
            buildargs={"BASE": base},
            labels={DIGEST_LABEL: guest_digest()},
            rm=True,
            timeout=1800,
        )
    except docker.errors.BuildError as error:
        tail = "".join(line.get("stream", "") for line in error.build_log)[-500:]
        raise NotReadyError(f"sandbox image from {base}: {error.msg}; {tail}") from error
    except (docker.errors.APIError, requests.RequestException) as error:
        raise NotReadyError(f"sandbox image from {base}: {error}") from error


def remove_outdated(client: Any) -> list[str]:
    """Remove our own images that hold another version of the fork server; returns their names.

    Those that a container still uses are kept.
    """
    import docker.errors

    removed = []
    for image in client.images.list(name=REPOSITORY):
        if image.labels.get(DIGEST_LABEL) in (None, guest_digest()):
            continue
        for name in image.tags:
            try:
                client.images.remove(name)
            except docker.errors.APIError as error:
                logger.info("image %s stays: %s", name, error)
                continue
            removed.append(name)
    return removed
