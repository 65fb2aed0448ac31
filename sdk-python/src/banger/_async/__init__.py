"""The asyncio client, which is what is written. `banger._sync` is generated from it, but for `_io`."""
