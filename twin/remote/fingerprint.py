"""What makes two requests the same request."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from twin.remote.packing import UNHASHED
from twin.remote.wire import Message


def fingerprint(message: Message, model: str) -> str:
    """A digest of what is asked, tensors included; not of how (deadline, belief)."""
    asked = {n: v for n, v in message.parameters.items() if n not in UNHASHED}
    forms = [(name, str(t.dtype), list(t.shape)) for name, t in message.tensors.items()]
    text = json.dumps([model, asked, forms, message.header.get("outputs")], sort_keys=True)
    digest = hashlib.sha256(text.encode())
    for tensor in message.tensors.values():
        digest.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
