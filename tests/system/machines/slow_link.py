"""Network cable with delay and loss between a machine and its switch (see the module `machines`).

The kernel's own emulation (`tc netem`) is a module that many kernels of virtual machines lack. This program needs only
/dev/net/tun. It opens a TAP interface at both ends and forwards each Ethernet frame after the delay.
A frame costs about 20 microseconds of CPU.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x2, 0x1000
_CLONE_NEWNET = 0x40000000
_FRAME_BYTES = 2048
# Frames that are under way in one direction, at most. Further ones are lost, as in a full buffer of a router.
_MAX_FRAMES = 10_000


@dataclass
class Direction:
    """One direction of the cable.

    Attributes:
        source: File descriptor of the TAP interface from which frames are read.
        target: File descriptor of the TAP interface to which frames are written.
        delay_s: Time from reading a frame to writing it.
        loss: Share of the frames that are dropped, 0 to 1.
        chance: Source of randomness for the loss.
        under_way: The frames that have been read, each with the monotonic time at which it is due.
    """

    source: int
    target: int
    delay_s: float
    loss: float
    chance: random.Random
    under_way: deque[tuple[float, bytes]] = field(default_factory=deque)

    def read(self) -> None:
        """Read all frames that have arrived. Drop some of them at random."""
        due = time.monotonic() + self.delay_s
        while True:
            try:
                frame = os.read(self.source, _FRAME_BYTES)
            except BlockingIOError:
                return
            if len(self.under_way) < _MAX_FRAMES and self.chance.random() >= self.loss:
                self.under_way.append((due, frame))

    def write(self) -> float | None:
        """Write the frames that are due, and return the seconds until the next one is due. None if there is none."""
        while self.under_way:
            wait_s = self.under_way[0][0] - time.monotonic()
            if wait_s > 0:
                return wait_s
            _, frame = self.under_way.popleft()
            try:
                os.write(self.target, frame)
            except OSError:
                continue  # the interface is down: the frame is lost
        return None


def main() -> None:
    """Connect two network namespaces until the process is killed; print "ready" when both interfaces exist.

    The command line: for either end the process id of a process in its namespace and the name of the new interface;
    then the delay in one direction in seconds, the loss as a share of frames, and a seed.
    """
    ends = [_open_tap(int(sys.argv[1]), sys.argv[2]), _open_tap(int(sys.argv[3]), sys.argv[4])]
    delay_s, loss, seed = float(sys.argv[5]), float(sys.argv[6]), int(sys.argv[7])
    directions = [
        Direction(ends[side], ends[1 - side], delay_s, loss, chance=random.Random(f"{seed} {side}")) for side in (0, 1)
    ]
    print("ready", flush=True)
    while True:
        waits = [wait_s for direction in directions if (wait_s := direction.write()) is not None]
        readable, _, _ = select.select(ends, [], [], min(waits, default=None))
        for direction in directions:
            if direction.source in readable:
                direction.read()


def _open_tap(process: int, name: str) -> int:
    """Create a TAP interface in the network namespace of a process, and return its non-blocking file descriptor.

    This process stays in that namespace.
    """
    # The namespace of the first end hides no path: /proc is that of the starting process.
    namespace = os.open(f"/proc/{process}/ns/net", os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(namespace)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


if __name__ == "__main__":
    main()
