"""A wall clock that starts elsewhere and advances.

The interpreter asks the C library for the time through its import table. Here the entries of
`clock_gettime`, `gettimeofday` and `time` are pointed at a few instructions that ask the original
and add a number of seconds. So `time`, `datetime` and extension modules see one shifted clock that
runs on; monotonic clocks, sleeping and time-outs stay as they are. Replacing `time.time` or
`datetime` in Python instead would miss C code and break tests that compare types.
"""

import calendar
import platform
import struct
import sys
import time

DAY = 86400
# A pointer that an import table holds, by machine: relocation types GLOB_DAT, JUMP_SLOT and plain address.
RELOCATIONS = {"x86_64": (6, 7, 1), "aarch64": (1025, 1026, 257)}


class ClockUnavailable(Exception):
    """Why the clock cannot be shifted here."""


def seconds_until(start, now):
    """Seconds from `now` to where the clock is to start."""
    if "days" in start:
        return start["days"] * DAY
    year = time.gmtime(now).tm_year
    for candidate in range(year, year + 9):
        instant = _yearly(start["yearly"], candidate) if "yearly" in start else _instant(start["at"], candidate)
        if instant is not None and instant > now:
            return int(instant - now)
    raise ClockUnavailable("no such day in the next eight years: %r" % (start,))


def _yearly(start, year):
    """The instant in a year, None if the year lacks the day."""
    month, day = start["month"], start["day"]
    if "weekday" in start:
        first, _days = calendar.monthrange(year, month)
        day = 1 + (start["weekday"] - first) % 7 + 7 * (day - 1)
    elif day > calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, start["hour"], start["minute"], 0))


def _instant(name, year):
    if name == "year_end":
        return calendar.timegm((year, 12, 31, 23, 59, 30))
    # Central Europe: 01:00 UTC on the last Sunday of March.
    last = max(week[calendar.SUNDAY] for week in calendar.monthcalendar(year, 3))
    return calendar.timegm((year, 3, last, 0, 59, 30))


def shift(seconds):
    """Shifts the clock of this process and of those it forks, and returns what does it: its
    `extend` covers libraries that were loaded since."""
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in RELOCATIONS or sys.maxsize < 1 << 32:
        raise ClockUnavailable("a clock can be shifted on 64-bit Linux on x86-64 and AArch64 only, this is %s" % machine)
    try:
        shifted = Shifted(machine, seconds)
    except ClockUnavailable:
        raise
    except Exception as error:  # ctypes may be missing, memory may not be made executable
        raise ClockUnavailable("the clock cannot be shifted: %s: %s" % (type(error).__name__, error))
    before = time.time()
    shifted.extend()
    import datetime

    both = (time.time() - before, datetime.datetime.now(datetime.timezone.utc).timestamp() - before)
    if any(abs(moved - seconds) > 5 for moved in both):
        shifted.undo()
        raise ClockUnavailable("the interpreter takes the time from elsewhere, its clock did not move")
    return shifted


class Shifted:
    """Replaced entries of import tables."""

    def __init__(self, machine, seconds):
        import ctypes
        import mmap

        self._ctypes = ctypes
        self._types = RELOCATIONS[machine]
        library = ctypes.CDLL(None)
        self._mprotect = library.mprotect
        self._mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        self._iterate = library.dl_iterate_phdr
        originals = {}
        for name in ("clock_gettime", "gettimeofday", "time"):
            originals[name] = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        build = {"x86_64": _code_x86_64, "aarch64": _code_aarch64}[machine]
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._replacements = {}
        place = 0
        for name, original in originals.items():
            code = build(name, original, seconds)
            self._memory[place : place + len(code)] = code
            self._replacements[name.encode()] = base + place
            place += 256
        self._own = (base, base + mmap.PAGESIZE)
        self._page = mmap.PAGESIZE
        # Read, execute; no longer written.
        if self._mprotect(base, mmap.PAGESIZE, 5) != 0:
            raise ClockUnavailable("memory cannot be made executable here")
        self._replaced = {}

    def extend(self):
        """Points the import tables of all libraries loaded by now at the shifted clock."""
        for address, target in self._entries():
            if address in self._replaced:
                continue
            entry = self._ctypes.c_uint64.from_address(address)
            self._replaced[address] = entry.value
            self._write(address, target)

    def undo(self):
        for address, original in self._replaced.items():
            self._write(address, original)
        self._replaced = {}

    def _write(self, address, value):
        start = address & ~(self._page - 1)
        # Tables are often read-only once filled. Left writable: they may share a page with data.
        if self._mprotect(start, self._page, 3) == 0:
            self._ctypes.c_uint64.from_address(address).value = value

    def _entries(self):
        found = []
        for base, dynamic in self._libraries():
            try:
                found.extend(self._entries_of(base, dynamic))
            except (ValueError, struct.error):
                continue
        return found

    def _libraries(self):
        """Base address and address of the dynamic section of what is loaded."""
        ctypes = self._ctypes
        libraries = []

        class Info(ctypes.Structure):
            _fields_ = [
                ("base", ctypes.c_uint64),
                ("name", ctypes.c_char_p),
                ("headers", ctypes.c_uint64),
                ("count", ctypes.c_uint16),
            ]

        def visit(info, _size, _data):
            found = info.contents
            # The kernel's own page exports the clock, it imports nothing.
            if b"linux-vdso" in (found.name or b""):
                return 0
            for i in range(found.count):
                kind, _flags, _offset, address = struct.unpack("=IIQQ", ctypes.string_at(found.headers + 56 * i, 24))
                if kind == 2:
                    libraries.append((found.base, found.base + address))
            return 0

        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)(visit)
        self._iterate(callback, None)
        return libraries

    def _entries_of(self, base, dynamic):
        read = self._ctypes.string_at
        tags = {}
        while True:
            tag, value = struct.unpack("=QQ", read(dynamic, 16))
            if tag == 0:
                break
            tags[tag] = value
            dynamic += 16
        # musl leaves addresses relative to the base, glibc does not.
        absolute = lambda value: value if value >= base else base + value
        if 5 not in tags or 6 not in tags:
            return
        names, symbols = absolute(tags[5]), absolute(tags[6])
        # DT_JMPREL with DT_PLTRELSZ, DT_RELA with DT_RELASZ
        for table, size in ((23, 2), (7, 8)):
            if table not in tags or not tags.get(size):
                continue
            entries = read(absolute(tags[table]), tags[size])
            for offset, info, _addend in struct.iter_unpack("=QQq", entries):
                if info & 0xFFFFFFFF not in self._types:
                    continue
                (name,) = struct.unpack("=I", read(symbols + 24 * (info >> 32), 4))
                target = self._replacements.get(read(names + name, 14).split(b"\0", 1)[0])
                if target is not None:
                    yield base + offset, target


def _code_x86_64(name, original, seconds):
    call = b"\x48\xb8" + struct.pack("=Q", original) + b"\xff\xd0"  # mov rax, original; call rax
    amount = b"\x48\xb9" + struct.pack("=q", seconds)  # mov rcx, seconds
    if name == "time":
        # push rbx; mov rbx, rdi; xor edi, edi; call; add rax, rcx; store through rbx if not null
        return (
            b"\x53\x48\x89\xfb\x31\xff" + call + amount + b"\x48\x01\xc8"
            b"\x48\x85\xdb\x74\x03\x48\x89\x03\x5b\xc3"
        )
    if name == "gettimeofday":
        # push rbx; mov rbx, rdi; call; test rbx, rbx; jz out; add [rbx], rcx; out: pop rbx; ret
        return b"\x53\x48\x89\xfb" + call + amount + b"\x48\x85\xdb\x74\x03\x48\x01\x0b\x5b\xc3"
    # clock_gettime: only CLOCK_REALTIME (0) and CLOCK_REALTIME_COARSE (5), and only if it succeeded.
    # push rbx; push rbp; sub rsp, 8; mov rbx, rsi; mov ebp, edi; call; test eax, eax; jnz out;
    # test ebp, ebp; jz add; cmp ebp, 5; jne out; add: mov rcx; add [rbx], rcx;
    # out: add rsp, 8; pop rbp; pop rbx; ret
    return (
        b"\x53\x55\x48\x83\xec\x08\x48\x89\xf3\x89\xfd" + call + b"\x85\xc0\x75\x16\x85\xed\x74\x05\x83\xfd\x05\x75\x0d"
        + amount + b"\x48\x01\x0b\x48\x83\xc4\x08\x5d\x5b\xc3"
    )


def _code_aarch64(name, original, seconds):
    def word(value):
        return struct.pack("<I", value)

    def load(register, value):
        value &= (1 << 64) - 1
        words = [0xD2800000 | ((value & 0xFFFF) << 5) | register]  # movz
        for part in (1, 2, 3):  # movk
            words.append(0xF2800000 | (part << 21) | (((value >> (16 * part)) & 0xFFFF) << 5) | register)
        return b"".join(word(w) for w in words)

    # stp x29, x30, [sp, #-32]!; stp x19, x20, [sp, #16]
    enter = word(0xA9BE7BFD) + word(0xA90153F3)
    # ldp x19, x20, [sp, #16]; ldp x29, x30, [sp], #32; ret
    leave = word(0xA94153F3) + word(0xA8C27BFD) + word(0xD65F03C0)
    call = load(16, original) + word(0xD63F0200)  # blr x16
    amount = load(9, seconds)
    if name == "time":
        keep = word(0xAA0003F3) + word(0xD2800000)  # mov x19, x0; mov x0, #0
        add = word(0x8B090000)  # add x0, x0, x9
        store = word(0xB4000053) + word(0xF9000260)  # cbz x19, +8; str x0, [x19]
        return enter + keep + call + amount + add + store + leave
    add = word(0xF940026A) + word(0x8B09014A) + word(0xF900026A)  # ldr x10, [x19]; add x10, x10, x9; str x10, [x19]
    if name == "gettimeofday":
        keep = word(0xAA0003F3)  # mov x19, x0
        return enter + keep + call + amount + word(0xB4000093) + add + leave  # cbz x19, past add
    keep = word(0xAA0103F3) + word(0xAA0003F4)  # mov x19, x1; mov x20, x0
    # cbnz w0, out; cbz w20, add; cmp w20, #5; b.ne out; add: amount (4 words) and add (3 words)
    check = word(0x35000160) + word(0x34000074) + word(0x7100169F) + word(0x54000101)
    return enter + keep + call + check + amount + add + leave
