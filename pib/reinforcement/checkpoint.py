"""A reinforced run on disk, in the blocks and with the seals of `pib.checkpoint`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from pib import checkpoint
from pib.reinforcement.agent import Agent
from pib.reinforcement.training import Training
from twin.errors import CheckpointError, PibTwinError


def save_training(folder: Path, training: Training, notes: Mapping[str, str]) -> None:
    """Checkpoint a training between two episodes: agent, memory, devices, ledger.

    The environment's own state is not in it, and need not be: the next episode
    begins from its seed.
    """
    arrays, text = training.state()
    agent = training.player
    if isinstance(agent, Agent):
        devices, told = checkpoint.device_state(agent.network)
        arrays, text = arrays | devices, text | told
        text["ledger"] = json.dumps(agent.ledger.rows())
    text |= {f"note.{name}": value for name, value in notes.items()}
    checkpoint.save(folder, arrays, text | {"threads": str(torch.get_num_threads())})


def load_training(folder: Path, training: Training) -> dict[str, str]:
    """Go on from `folder`; returns the notes, and "threads" it was made with."""
    loaded = checkpoint.load(folder)
    training.load(loaded.arrays, loaded.text)
    agent = training.player
    try:
        if isinstance(agent, Agent):
            agent.ledger.load(json.loads(loaded.text["ledger"]))
            checkpoint.restore_devices(agent.network, loaded)
    except (KeyError, ValueError) as error:
        if isinstance(error, PibTwinError):
            raise
        raise CheckpointError(f"{folder}: a device's state is incomplete: {error}.") from None
    notes = {n[5:]: v for n, v in loaded.text.items() if n.startswith("note.")}
    return {**notes, "threads": loaded.text["threads"]}
