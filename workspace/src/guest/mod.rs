//! The half that works in the VM.
