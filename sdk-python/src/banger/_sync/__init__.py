"""The blocking client, generated from `banger._async`, but for `_io`."""
