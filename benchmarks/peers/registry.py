"""List the peers, ours first."""

from __future__ import annotations

from benchmarks.peers import export_llm, genai, llama_cpp, ours
from benchmarks.peers.base import Peer

PEERS: tuple[Peer, ...] = (*ours.PEERS, *llama_cpp.PEERS, export_llm.PEER, genai.PEER)


def peer_named(name: str) -> Peer:
    """Return the peer called `name`.

    Raises:
        KeyError: No peer has that name; the message lists those that exist.
    """
    for peer in PEERS:
        if peer.name == name:
            return peer
    known = ", ".join(peer.name for peer in PEERS)
    raise KeyError(f"no peer is called {name!r}; known peers: {known}")
