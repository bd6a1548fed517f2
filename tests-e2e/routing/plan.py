"""What a run is to be like."""

from dataclasses import dataclass
from enum import Enum


class Fault(Enum):
    """What befalls one of the servers, in the middle third of a run."""

    NONE = "all well"
    SLOW = "one slow"
    HANGS = "one hangs"


@dataclass(frozen=True, slots=True)
class Plan:
    """The servers, the gateways and the traffic."""

    seed: int
    fault: Fault = Fault.NONE
    seconds: float = 400.0
    gateways: int = 3
    servers: int = 6
    slots: int = 16
    """Requests that a server works on at once."""
    cache_blocks: int = 480
    """Of its KV cache, for what it works on and what it has kept."""
    prefill_seconds: float = 0.018
    """For a block of 128 tokens that is not cached, one after the other."""
    token_seconds: float = 0.015
    """For a token of an answer, alone; twice as long where all slots are taken."""
    conversations: float = 4.7
    """That begin each second."""
    turns: int = 5
    """Of a conversation, at most."""
    thinking_seconds: float = 6.0
    applications: int = 40
    """Each has a long prompt that all of its conversations begin with."""
    skew: float = 1.1
    """Exponent of Zipf's law, by which conversations choose their application."""
    bare: float = 0.15
    """Part of the conversations that belong to no application."""
    observed_every: float = 1.0
    observed_late: float = 0.3
    """Seconds until gateways hear of it, at most."""
    slowed: float = 4.0
    hung_seconds: float = 12.0
