"""banger from Python: sandboxes that are real microVMs.

    with banger.connect() as client:
        with client.vms.create(image="debian:bookworm", memory_mib=512) as vm:
            print(vm.run("uname -a").stdout)

This module waits; `banger.aio` has the same names for asyncio. Messages of the API are in `banger.v1`, errors in
`banger.errors`, a fake daemon for unit tests in `banger.testing`.
"""

from banger import errors, v1
from banger._mount import Mount, VmFile
from banger._position import Event, Exited, Gap, Output, Screen
from banger._result import Exit, Result
from banger._sync.client import Client, Operations, connect
from banger._sync.files import Files
from banger._sync.images import Catalogs, Images, Kernels, Volumes
from banger._sync.process import Process
from banger._sync.session import Session, Sessions
from banger._sync.tunnel import Forward, Tunnel
from banger._sync.vm import ConsoleOutput, Vm, Vms
from banger._sync.workspace import Prepared, Workspace
from banger._unpack import Downloaded
from banger._workspace.apply import Applied
from banger._workspace.land import Landed
from banger._workspace.plain import AppliedFiles
from banger._workspace.publish import LandedRepository
from banger.errors import BangerError

__version__ = "0.1.0"

__all__ = [
    "connect",
    "Client",
    "Vms",
    "Vm",
    "Mount",
    "VmFile",
    "Result",
    "Exit",
    "Sessions",
    "Session",
    "Process",
    "Event",
    "Output",
    "Gap",
    "Screen",
    "Exited",
    "Files",
    "Downloaded",
    "Workspace",
    "Prepared",
    "Landed",
    "LandedRepository",
    "Applied",
    "AppliedFiles",
    "Tunnel",
    "Forward",
    "ConsoleOutput",
    "Images",
    "Kernels",
    "Catalogs",
    "Volumes",
    "Operations",
    "BangerError",
    "errors",
    "v1",
]
