"""A small root file system for the tests: the host's static busybox, and a user besides root."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

BUSYBOX = Path("/bin/busybox")


# Debian's busybox has neither.
ADDUSER = b"""#!/bin/sh
for name; do :; done
echo "$name:x:2000:2000::/tmp:/bin/sh" >>/etc/passwd
"""
USERDEL = b"""#!/bin/sh
for name; do :; done
sed -i "/^$name:/d" /etc/passwd
"""


def rootfs() -> bytes:
    """As a tar archive."""
    applets = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout.split()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, mode: int, content: bytes | None = None, link: str = "", owner: int = 0) -> None:
            info = tarfile.TarInfo(name)
            info.mode, info.uid, info.gid = mode, owner, owner
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            elif content is None:
                info.type = tarfile.DIRTYPE
            else:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content or b""))

        for name in ("bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr", "usr/bin", "usr/sbin", "var"):
            add(name, 0o755)
        add("tmp", 0o1777)
        add("home/app", 0o755, owner=1000)
        add("bin/busybox", 0o755, BUSYBOX.read_bytes())
        for applet in applets:
            if applet != "busybox":
                add(f"bin/{applet}", 0o777, link="busybox")
                add(f"usr/bin/{applet}", 0o777, link="../../bin/busybox")
        add("usr/bin/adduser", 0o755, ADDUSER)
        add("usr/bin/userdel", 0o755, USERDEL)
        add("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:App:/home/app:/bin/sh\n")
        add("etc/group", 0o644, b"root:x:0:\napp:x:1000:\n")
        add("etc/shadow", 0o600, b"root:*:1::::::\napp:*:1::::::\n")
    return out.getvalue()
