"""The same as `banger`, for asyncio.

    async with await banger.aio.connect() as client:
        async with await client.vms.create(image="debian:bookworm") as vm:
            print((await vm.run("uname -a")).stdout)

A client belongs to the event loop that it was made in. A call that is cancelled leaves nothing behind.
"""

from banger import errors, v1
from banger._async.client import Client, Operations, connect
from banger._async.files import Files
from banger._async.images import Catalogs, Images, Kernels, Volumes
from banger._async.process import Process
from banger._async.session import Session, Sessions
from banger._async.tunnel import Forward, Tunnel
from banger._async.vm import ConsoleOutput, Vm, Vms
from banger._async.workspace import Prepared, Workspace
from banger._mount import Mount, VmFile
from banger._position import Event, Exited, Gap, Output, Screen
from banger._result import Exit, Result
from banger._unpack import Downloaded
from banger._workspace.apply import Applied
from banger._workspace.land import Landed
from banger._workspace.plain import AppliedFiles
from banger._workspace.publish import LandedRepository
from banger.errors import BangerError

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
