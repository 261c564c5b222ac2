"""A place for one program at a time: a slot of a worker."""

from dataclasses import dataclass

from agentrl.sandbox.worker import Worker


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Seat:
    """One slot of one worker; two seats are equal only when they are the same object."""

    worker: Worker
    slot: int

    def sits_on(self, worker: Worker) -> bool:
        """Whether the slot is one of `worker`'s."""
        return self.worker is worker
