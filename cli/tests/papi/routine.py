"""What VPP's test framework does in each of its tests, by unmodified vpp_papi: packets out of and into pcap files, and the commands around
them. Prints the commands.

    routine.py API_SOCKET DIRECTORY NAME_OF_AN_API_TRACE
"""

import os
import struct
import sys
import time

from vpp_papi import VPPApiClient

socket, directory, trace = sys.argv[1:4]
client = VPPApiClient(server_address=socket, bootstrapapi=True)
client.connect("routine.py")
api = client.api


def cli(command, retval=0):
    # The framework ends lines.
    reply = api.cli_inband(cmd=command + "\n")
    assert reply.retval == retval, (command, reply)
    return reply.reply


def write(path, packets):
    with open(path, "wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for packet in packets:
            file.write(struct.pack("=IIII", 0, 0, len(packet), len(packet)) + packet)


def read(path):
    with open(path, "rb") as file:
        data = file.read()[24:]
    packets = []
    while data:
        length = struct.unpack("=I", data[8:12])[0]
        packets.append(data[16 : 16 + length])
        data = data[16 + length :]
    return packets


# Two cross-connected interfaces.
ports = [api.pg_create_interface_v3(interface_id=n).sw_if_index for n in range(2)]
for port, other in zip(ports, reversed(ports)):
    assert api.sw_interface_set_flags(sw_if_index=port, flags=1).retval == 0
    assert api.sw_interface_set_l2_xconnect(rx_sw_if_index=port, tx_sw_if_index=other).retval == 0

packets = [bytes([2, 0, 0, 0, 0, 1] * 2 + [0x88, 0xB5]) + struct.pack("=I", n) * 12 for n in range(1000)]
sent, out = directory + "/pg0_in.pcap", directory + "/pg1_out.pcap"
capture = f"packet-generator capture pg1 pcap {out}"
for turn in range(30):
    cli(capture + " disable")
    if os.path.exists(out):
        os.remove(out)
    cli(capture)
    write(sent, packets)
    more = ["", " limit 700", " maxframe 3", " worker 0"][turn % 4]
    cli(f"packet-generator new pcap {sent} source pg0 name pcap0-sw_if_index-1{more}")
    # It is read at once.
    os.remove(sent)
    cli("clear trace")
    cli("trace add pg-input 1000")
    cli("packet-generator enable")
    while "Yes" in cli("show packet-generator"):
        pass
    # Without waiting: what was sent is in the file.
    expected = packets[:700] if "limit" in more else packets
    assert read(out) == expected, (turn, len(read(out)))
    cli("packet-generator delete pcap0-sw_if_index-1")

# One packet, which a reader of the file waits for.
cli(capture + " disable")
waits = []
for _ in range(20):
    cli(capture)
    write(sent, packets[:1])
    cli(f"packet-generator new pcap {sent} source pg0 name one")
    cli("packet-generator enable one")
    start = time.monotonic()
    while len(read(out)) < 1:
        assert time.monotonic() < start + 10
    waits.append(time.monotonic() - start)
    cli("packet-generator disable one")
    cli("packet-generator delete one")
    cli(capture + " disable")
# Far from the 100 ms after which somebody would look anyway.
assert sorted(waits)[len(waits) // 2] < 0.03, waits

commands = """
show log
show bihash
show hardware
show hardware-interfaces verbose
show error
sh errors
show run
show int
show interface addr
show memory
show memory main-heap verbose
show buffers
show plugins
show clock
show thread
show version
show node counters
show trace
show trace max 100
show packet-generator
show packet-generator verbose
clear trace
clear interfaces
clear int
clear runtime
clear run
clear errors
clear err
""".split("\n")
commands = [command for command in commands if command] + ["api trace save " + trace]
for command in commands:
    cli(command)
assert float(cli("show clock").partition(",")[0].partition("Time now")[2]) > 0
assert int(cli("show thread").split("\n")[-2].split(" ")[0]) == 1, "workers"
assert "pg1" in cli("show int")

# A command that fails says why in its reply.
assert cli("show nothing", -1).startswith("show: unknown input `nothing'")
assert cli("set interface state nowhere up", -1).endswith("\n")
client.disconnect()
print("\n".join(commands))
