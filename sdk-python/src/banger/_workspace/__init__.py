"""The half of a workspace on its owner's machine; the counterpart of `workspace/src/client` in Rust.

    a repository ─► collect ─► parts ─► the VM
    the VM ─► parts ─► judge ─► quarantine ─► refs/banger/VM/…

The owner's repository is believed, what comes from a VM is not. Collecting writes nothing. Landing writes objects that
were checked and references beneath `refs/banger/`, and touches neither index nor working tree. Everything here blocks,
and works with git as a program: the same commands, environment and bounds as in Rust.
"""
