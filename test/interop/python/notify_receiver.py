"""Stands in for systemd at the other end of NOTIFY_SOCKET: prints each message as a line, and closes what it is passed, which is how
systemd says that it has read what came before (sd_notify_barrier(3))."""

import array
import os
import socket
import sys

receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print("bound", flush=True)
while True:
    message, ancillary, _, _ = receiver.recvmsg(65536, socket.CMSG_SPACE(64))
    for _, _, data in ancillary:
        descriptors = array.array("i")
        descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        for descriptor in descriptors:
            os.close(descriptor)
    print(message.decode().replace("\n", " "), flush=True)
