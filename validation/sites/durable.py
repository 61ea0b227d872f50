"""A site's state on disk, from which it goes on after it was killed."""

from __future__ import annotations

import json

from pib import checkpoint
from pib.local import under
from pib.network import Network
from twin.errors import CheckpointError, PibTwinError
from validation.sites.mailbox import Traffic
from validation.sites.order import CHECKPOINT
from validation.sites.record import Record
from validation.sites.site import Site


def save(site: Site) -> None:
    """Checkpoint the site after a whole step: unit, device, record, traffic."""
    arrays, text = site.local.state()
    # "trainer." is how checkpoints know the stored readings, which are not written twice.
    arrays = {f"trainer.{n}": t for n, t in arrays.items()}
    arrays |= {f"network.{n}": t for n, t in site.network.state().items()}
    arrays |= {f"record.{n}": t for n, t in site.record.arrays().items()}
    device, device_text = checkpoint.device_state(_own(site))
    text |= {
        "begun": str(int(site.begun)),
        "traffic": json.dumps(site.door.traffic.plain()),
        "ledger": json.dumps(site.ledger.rows()),
        "said": json.dumps(site.said),
        "last_heard": str(site.last_heard),
    }
    checkpoint.save(site.order.own / CHECKPOINT, arrays | device, text | device_text)


def resume(site: Site) -> None:
    """Go on from the site's last checkpoint.

    The features in use are not in it: the next step takes the latest
    publication, as a site that had slept would.
    """
    folder = site.order.own / CHECKPOINT
    found = checkpoint.load(folder)
    try:
        site.network.load(under(found.arrays, "network."))
        if found.text["begun"] == "1":
            site.local.load(under(found.arrays, "trainer."), found.text)
        site.record = Record.from_arrays(under(found.arrays, "record."))
        site.door.traffic = Traffic.from_plain(json.loads(found.text["traffic"]))
        site.ledger.load(json.loads(found.text["ledger"]))
        site.said = json.loads(found.text["said"])
        site.begun, site.last_heard = found.text["begun"] == "1", int(found.text["last_heard"])
        if site.local.unit.fence.capabilities.restorable:
            checkpoint.restore_devices(_own(site), found)
        elif site.begun:
            site.local.write_again()
    except (KeyError, ValueError) as error:
        if isinstance(error, PibTwinError):
            raise
        raise CheckpointError(f"{folder}: lacks {error}; it is of another run.") from None


def _own(site: Site) -> Network:
    """The one device that stands here, for functions that go through all."""
    return Network([site.local.unit])
