# cython: language_level=3, binding=False
"""The usual way of a row, compiled: what schemas.writing.rowcode and the stream do in Python, byte for byte the same.

What is unusual here is left to the plain way, which takes it or says what is wrong with it: a value that was not sent,
a NULL where none may be, a message that is cut off. Nothing is read beyond the end of a message.
Source: PostgreSQL manual, "Logical Replication Message Formats"; Avro specification, "Binary Encoding".
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Realloc
from libc.string cimport memcmp, memcpy

from schemas.types import encoders
from schemas.types import temporal
from schemas.model.change import STAMP_HEADER
from schemas.types.encoders import FAILURES, INTEGER_CODE, FixedDecimals
from schemas.types.kind import BOOLEAN_CODE, CALL_CODE, STRING_CODE

ctypedef unsigned long long number_t

cdef enum:
    ENCODED, TEXT, INTEGER, BOOLEAN, DECIMAL, ZONED, SKIPPED  # how a column is written; ENCODED by its kind's function
    MOST_KEYS = 32  # columns of a key, as in PostgreSQL
    DIGITS = 19  # so many fit into 64 bits
    STACK = 2048  # bytes of a value for which no memory is asked

_WAYS = {STRING_CODE: TEXT, INTEGER_CODE: INTEGER, BOOLEAN_CODE: BOOLEAN, CALL_CODE: ENCODED}


cdef struct Column:
    int way
    int scale  # of a decimal; the digits of a second
    int key  # its place in the key, or -1
    const char *present
    Py_ssize_t present_size
    const char *null  # NULL: none allowed
    Py_ssize_t null_size


cdef struct Out:
    char *data
    Py_ssize_t size
    Py_ssize_t room
    char *own  # NULL: `data` is on the stack


cdef int grow(Out *out, Py_ssize_t more) except -1:
    cdef char *data = <char *>PyMem_Realloc(out.own, out.room + more)
    if data == NULL:
        raise MemoryError
    if out.own == NULL:
        memcpy(data, out.data, out.size)
    out.data = out.own = data
    out.room += more
    return 0


cdef inline int put(Out *out, const char *data, Py_ssize_t size) except -1:
    if size > out.room - out.size:
        grow(out, size + out.room)
    memcpy(out.data + out.size, data, size)
    out.size += size
    return 0


cdef inline int put_bytes(Out *out, bytes data) except -1:
    return put(out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef inline int put_varint(Out *out, number_t rest) except -1:
    """Avro's int and long, zigzag already."""
    cdef char[10] digits
    cdef int size = 0
    while rest > 127:
        digits[size] = <char>(rest & 127 | 128)
        rest >>= 7
        size += 1
    digits[size] = <char>rest
    return put(out, digits, size + 1)


cdef int shown(number_t number, char *digits) noexcept:
    """Writes decimal digits, 20 at most; how many."""
    cdef char[20] turned
    cdef int size = 0, at
    while True:
        turned[size] = <char>(48 + number % 10)
        number //= 10
        size += 1
        if number == 0:
            break
    for at in range(size):
        digits[at] = turned[size - 1 - at]
    return size


cdef bint read_digits(const char *text, Py_ssize_t size, number_t *number) noexcept:
    """Digits alone, from one to DIGITS of them."""
    cdef Py_ssize_t at
    if not 0 < size <= DIGITS:
        return False
    number[0] = 0
    for at in range(size):
        if not 48 <= text[at] <= 57:
            return False
        number[0] = number[0] * 10 + (text[at] - 48)
    return True


cdef int put_integer(Out *out, const char *text, Py_ssize_t size) except -1:
    """1: done; 0: not a long in digits."""
    cdef number_t number
    cdef bint negative = size > 0 and text[0] == 45
    if not read_digits(text + negative, size - negative, &number) or number > (<number_t>1 << 63) - 1 + negative:
        return 0
    put_varint(out, (number << 1) - 1 if negative and number else number << 1)
    return 1


cdef int put_decimal(Out *out, const char *text, Py_ssize_t size, int scale) except -1:
    """1: done; 0: not `scale` digits behind a point, or more than 18 digits."""
    cdef number_t whole, part, power = 1
    cdef long long number, rest
    cdef bint negative = size > 0 and text[0] == 45
    cdef Py_ssize_t before = size - negative - scale - 1
    cdef char[10] content
    cdef int length = 1, at
    if before < 1 or before + scale > 18 or text[negative + before] != 46:
        return 0
    if not read_digits(text + negative, before, &whole) or not read_digits(text + size - scale, scale, &part):
        return 0
    for at in range(scale):
        power *= 10
    number = <long long>(whole * power + part)
    if negative:
        number = -number
    rest = number if number >= 0 else ~number
    while rest > 127:
        rest >>= 8
        length += 1
    content[0] = <char>(length << 1)
    for at in range(length):
        content[length - at] = <char>(number >> (8 * at) & 255)
    put(out, content, length + 1)
    return 1


cdef int put_zoned(Out *out, const char *text, Py_ssize_t size, int digits) except -1:
    """1: done; 0: not UTC, or not a year of four digits."""
    cdef Py_ssize_t at, shown = size - 3
    cdef bint point = False
    if size < 5 or text[4] != 45 or text[size - 3] != 43 or text[size - 2] != 48 or text[size - 1] != 48:
        return 0
    for at in range(size - 3):
        point = point or text[at] == 46
    if digits:
        shown = max(shown + (not point), 20 + digits)
    put_varint(out, (shown + 1) << 1)
    put(out, text, size - 3)
    for at in range(out.size - size + 3, out.size):
        if out.data[at] == 32:
            out.data[at] = 84
    if digits and not point:
        put(out, b".", 1)
        shown -= 1
    if shown > size - 3:
        put(out, b"00000000000000000000000000", shown - size + 3)  # of a broken text, too
    put(out, b"Z", 1)
    return 1


cdef class Record:
    """Instead of rowcode.RowCode.record's function, called as that is; `plain` is that function."""

    cdef object plain
    cdef bytes key_head, value_head, table
    cdef list encoders, held  # `held` keeps what the columns point to
    cdef Column *columns
    cdef Py_ssize_t count, keys

    def __init__(self, columns, key, bytes key_head, bytes value_head, bytes table, plain):
        cdef Py_ssize_t index
        self.plain, self.key_head, self.value_head, self.table = plain, key_head, value_head, table
        self.encoders = [column.kind.encode for column in columns]
        self.held = [(column.present, column.null) for column in columns]
        self.count, self.keys = len(columns), 0 if key_head is None else len(key)
        self.columns = <Column *>PyMem_Calloc(self.count + 1, sizeof(Column))
        if self.columns == NULL:
            raise MemoryError
        for index, (present, null) in enumerate(self.held):
            one = &self.columns[index]
            one.way, one.scale = _way(columns[index])
            one.key = key.index(index) if key_head is not None and index in key else -1
            one.present, one.present_size = <bytes?>present, len(present)
            if null is not None:
                one.null, one.null_size = <bytes?>null, len(null)

    def __dealloc__(self):
        PyMem_Free(self.columns)

    def __call__(self, bytes data not None, prefix, lsn, str op not None):
        cdef tuple made = self.make(data, prefix, lsn, op) if 0 <= lsn < 1 << 63 else None
        return self.plain(data, prefix, lsn, op) if made is None else made

    cdef tuple make(self, bytes data, prefix, number_t lsn, str op):
        """(key, value); None for what is unusual."""
        cdef char[STACK] room
        cdef Out out = [room, 0, STACK, NULL]
        cdef Py_ssize_t[2 * MOST_KEYS] spans
        try:
            put_bytes(&out, self.value_head)
            if not self.row(&out, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data), spans):
                return None
            self.source(&out, prefix, lsn, op)
            value = PyBytes_FromStringAndSize(out.data, out.size)
            return None if self.key_head is None else self.key(out.data, spans), value
        except FAILURES:
            return None
        finally:
            PyMem_Free(out.own)

    cdef bytes key(self, const char *value, const Py_ssize_t *spans):
        """The key of the columns that lie there in the value, each from byte to byte."""
        cdef Py_ssize_t place, size = PyBytes_GET_SIZE(self.key_head)
        cdef bytes made
        cdef char *at
        for place in range(self.keys):
            size += spans[2 * place + 1] - spans[2 * place]
        made = PyBytes_FromStringAndSize(NULL, size)
        at = PyBytes_AS_STRING(made)
        memcpy(at, PyBytes_AS_STRING(self.key_head), PyBytes_GET_SIZE(self.key_head))
        at += PyBytes_GET_SIZE(self.key_head)
        for place in range(self.keys):
            memcpy(at, value + spans[2 * place], spans[2 * place + 1] - spans[2 * place])
            at += spans[2 * place + 1] - spans[2 * place]
        return made

    cdef bint row(self, Out *out, const char *data, Py_ssize_t size, Py_ssize_t *spans) except -1:
        """TupleData from byte 6 on; False for what is unusual."""
        cdef const unsigned char *octets = <const unsigned char *>data
        cdef Py_ssize_t at = 8, index, length, begin
        cdef Column *column
        if size < at or (octets[6] << 8 | octets[7]) != self.count:
            return False
        for index in range(self.count):
            column, begin = &self.columns[index], out.size
            if at >= size:
                return False
            if octets[at] == 116:  # t
                if size - at < 5:
                    return False
                length = <Py_ssize_t>octets[at + 1] << 24 | octets[at + 2] << 16 | octets[at + 3] << 8 | octets[at + 4]
                at += 5
                if not 0 <= length <= size - at or not self.cell(out, index, data + at, length):
                    return False
                at += length
            elif octets[at] == 110 and column.null != NULL:  # n
                put(out, column.null, column.null_size)
                at += 1
            elif column.way == SKIPPED and octets[at] in (110, 117):
                at += 1
            else:
                return False
            if column.key >= 0:
                spans[2 * column.key], spans[2 * column.key + 1] = begin, out.size
        return at == size

    cdef bint cell(self, Out *out, Py_ssize_t index, const char *text, Py_ssize_t size) except -1:
        cdef Column *column = &self.columns[index]
        put(out, column.present, column.present_size)
        if column.way == TEXT:
            put_varint(out, size << 1)
            put(out, text, size)
            return True
        if column.way == INTEGER:
            if size == 0 or size < 4 and (text[0] == 48 and size > 1 or text[0] == 45 and (size < 2 or text[1] == 48)):
                return False
            if put_integer(out, text, size):
                return True
            if size < 4:
                return False
        elif column.way == BOOLEAN:
            if size != 1 or text[0] not in (116, 102):
                return False
            return put(out, b"\1" if text[0] == 116 else b"\0", 1) == 0
        elif column.way == SKIPPED:
            return True
        elif column.way == DECIMAL and put_decimal(out, text, size, column.scale):
            return True
        elif column.way == ZONED and put_zoned(out, text, size, column.scale):
            return True
        put_bytes(out, <bytes?>self.encoders[index](PyBytes_FromStringAndSize(text, size)))
        return True

    cdef int source(self, Out *out, prefix, number_t lsn, str op) except -1:
        """The envelope behind the row; `prefix` is a codec.SourcePrefix."""
        cdef char[20] digits
        cdef int length = shown(lsn, digits)
        cdef bytes sequence = prefix[1]
        put_bytes(out, prefix[0])
        put_varint(out, (PyBytes_GET_SIZE(sequence) + length + 2) << 1)
        put_bytes(out, sequence)
        put(out, digits, length)
        put(out, b'"]', 2)
        put_bytes(out, prefix[2])
        put_bytes(out, self.table)
        put_bytes(out, prefix[3])
        put_varint(out, lsn << 1)
        put_bytes(out, (<dict?>prefix[5])[op])
        return put_bytes(out, prefix[4])


def _way(column):
    """(way, scale). Told by what the plain way would do: whatever is put around a kind's function is not known here."""
    kind = column.kind
    decimals = getattr(kind.encode, "__self__", None)
    if column.skipped:
        return SKIPPED, 0
    if kind.code == CALL_CODE and type(decimals) is FixedDecimals:
        return DECIMAL, decimals.scale
    if kind.code == CALL_CODE and getattr(kind.encode, "func", None) is temporal.zoned_timestamp:
        return ZONED, kind.encode.args[0]
    return _WAYS[kind.code], 0


def long_bytes(number):
    """As encoders.long_bytes."""
    cdef char[10] room
    cdef Out out = [room, 0, 10, NULL]
    cdef long long known
    if not -(1 << 63) <= number < 1 << 63:
        return encoders.long_bytes(number)
    known = number
    put_varint(&out, (<number_t>known << 1) ^ <number_t>(known >> 63))
    return PyBytes_FromStringAndSize(room, out.size)


def takes(columns, key):
    """Whether a Record can be made of these."""
    return len(key) <= MOST_KEYS and all(column.skipped or column.kind.code in _WAYS for column in columns)


cdef class UsualRows:
    """Reads the log, and takes the rows that are usual on the way; what it leaves goes through the stream's handlers.

    `begin` and `commit` are those of a Begin and a Commit, so that a round reads many small transactions; `begin` gives
    the one that is open from there on. No more is read while the `writer` is full. `get` gives the table of an OID. A
    row larger than `suspect` bytes is left, and the one with which `piece_records` or `piece_bytes` are reached,
    `overhead` for each among them.
    """

    cdef object read_message, begin, commit, writer, get
    cdef Py_ssize_t suspect, piece_records, piece_bytes, overhead
    cdef readonly number_t last_start
    """The data_start of the message read last."""
    cdef readonly Py_ssize_t taken
    """So many messages were taken by the last call."""
    # Of the open transaction, and of the table of its last row, while a call lasts:
    cdef object transaction  # None: no row was taken of it in this call
    cdef object prefix, header, place, topic, partition
    cdef bytes stamp
    cdef list drafts
    cdef dict counts, events
    cdef Record record  # None: no table yet
    cdef double skip
    cdef number_t ordinal
    cdef Py_ssize_t filled, created, updated
    cdef char[4] oid

    def __init__(self, read_message, begin, commit, writer, get, suspect, piece_records, piece_bytes, overhead):
        self.read_message, self.begin, self.commit = read_message, begin, commit
        self.writer, self.get = writer, get
        self.suspect, self.overhead = suspect, overhead
        self.piece_records, self.piece_bytes = piece_records, piece_bytes

    def read(self, transaction, number_t confirmed, Py_ssize_t most):
        """The next message that is left, None when there is none now; after `most` messages it is the next of any kind.

        `transaction` is the open one or None. A message at or before the LSN `confirmed` is left: see acknowledge.
        """
        cdef char kind
        self.taken = 0
        try:
            while True:
                message = self.read_message()
                if message is None:
                    return None
                self.last_start = message.data_start
                if self.taken >= most or self.last_start <= confirmed:
                    return message
                payload = <bytes?>message.payload
                kind = PyBytes_AS_STRING(payload)[0]
                if kind == 66 and transaction is None:  # B
                    transaction = self.begin(payload, self.last_start)
                elif kind == 67 and transaction is not None:  # C
                    self.leave()
                    transaction = None
                    self.commit(payload, self.last_start)
                    if self.writer.full:
                        return None
                elif transaction is None or not self.take(payload, transaction):
                    return message
                self.taken += 1
        finally:
            self.leave()

    cdef int enter(self, transaction) except -1:
        """Takes over what rows of a transaction need and change."""
        self.transaction, self.header, self.prefix = transaction, transaction.header, transaction.prefix
        self.drafts, self.counts, self.stamp = transaction.drafts, transaction.counts, transaction.stamp
        self.ordinal, self.filled, self.skip = transaction.ordinal, transaction.bytes, transaction.skip
        return 0

    cdef int leave(self) except -1:
        """Gives back what they have changed."""
        if self.transaction is not None:
            self.count()
            self.transaction.ordinal, self.transaction.bytes = self.ordinal, self.filled
        self.transaction = self.record = None
        return 0

    cdef bint take(self, bytes payload, transaction) except -1:
        cdef Py_ssize_t size = PyBytes_GET_SIZE(payload), filled
        cdef const char *data = PyBytes_AS_STRING(payload)
        if size < 6 or size > self.suspect or data[5] != 78 or data[0] not in (73, 85):  # N; I, U
            return False
        if self.transaction is None:
            self.enter(transaction)
        filled = self.filled + size + self.overhead
        if self.ordinal + 1 <= self.skip or filled >= self.piece_bytes:
            return False
        if len(self.drafts) + 1 >= self.piece_records or self.last_start >> 63 or not self.table(data + 1):
            return False
        made = self.record.make(payload, self.prefix, self.last_start, "c" if data[0] == 73 else "u")
        if made is None:
            return False
        self.ordinal += 1
        self.filled = filled
        self.created += data[0] == 73
        self.updated += data[0] == 85
        key, value = <tuple>made
        headers = [(STAMP_HEADER, stamped(self.stamp, self.ordinal)), self.header]
        self.drafts.append((self.topic, self.partition, key, value, headers))
        return True

    cdef bint table(self, const char *oid) except -1:
        """Looks the row's table up; False where there is none, or no compiled way to write it."""
        if self.record is not None and memcmp(self.oid, oid, 4) == 0:
            return True
        table = self.get(PyBytes_FromStringAndSize(oid, 4))
        if table is None or type(table.record) is not Record:
            return False
        self.count()
        memcpy(self.oid, oid, 4)
        self.record, self.topic, self.partition = table.record, table.topic, table.partition
        self.place, self.events = table.place, table.events
        return True

    cdef int count(self) except -1:
        """Adds what came of the last table to its counts."""
        if self.created or self.updated:
            self.counts[self.place] = self.counts.get(self.place, 0) + self.created + self.updated
            self.events["c"] += self.created
            self.events["u"] += self.updated
            self.created = self.updated = 0
        return 0


cdef bytes stamped(bytes stamp, number_t ordinal):
    """The stamp of the transaction and the ordinal behind it."""
    cdef char[20] digits
    cdef int length = shown(ordinal, digits)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(stamp)
    cdef bytes made = PyBytes_FromStringAndSize(NULL, size + length)
    memcpy(PyBytes_AS_STRING(made), PyBytes_AS_STRING(stamp), size)
    memcpy(PyBytes_AS_STRING(made) + size, digits, length)
    return made
