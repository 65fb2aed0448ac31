//! Tests of banger with real virtual machines through the public API.
