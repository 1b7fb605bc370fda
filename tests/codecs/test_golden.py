# ruff: noqa: E501
"""The bytes of one value of each type. They stand in stores: none of these lines ever changes; new ones are added."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import hashlib
import pathlib
import random
import uuid
import zoneinfo
from typing import Any

import numpy as np
import pytest

from tests.codecs.strategies import Access, Cell, Color, MemorySource, Particle, Point, identical
from trax.codecs import get_codec
from trax.codecs import table as codec_table
from trax.codecs.buffers import MemoryBuffer

MOMENT = datetime.datetime(2026, 11, 21, 9, 25, 1, 500, zoneinfo.ZoneInfo("Europe/Berlin"), fold=1)
HOUR = datetime.timedelta(hours=1)
STRUCT = np.dtype([(("t", "a"), "i1"), ("b", ">f8", (2,))], align=True)

#: value, its msgpack (from 200 bytes on: the SHA-256), its JSON (the same).
GOLDEN: dict[str, tuple[Any, str, str]] = {
    "none": (None, "c0", "null"),
    "true": (True, "c3", "true"),
    "int64": (-(2**63), "d38000000000000000", "-9223372036854775808"),
    "float": (-0.0, "cb8000000000000000", "-0.0"),
    "str": ("ü\ud800", "a5c3bceda080", '"ü\ud800"'),
    "bytes": (b"ab", "c4026162", '{"$bytes": "YWI="}'),
    "list": ([1, [2]], "92019102", "[1, [2]]"),
    "dict": ({"a": {}, "b": 1.5}, "82a16180a162cb3ff8000000000000", '{"a": {}, "b": 1.5}'),
    "int keys": ({1: 2}, "810102", '{"$dict": [[1, 2]]}'),
    "tuple": ((1, ()), "c705019201d40190", '{"$tuple": [1, {"$tuple": []}]}'),
    "set": ({7}, "d5029107", '{"$set": [7]}'),
    "frozenset": (frozenset({7}), "d5039107", '{"$frozenset": [7]}'),
    "bytearray": (bytearray(b"ab"), "d604c4026162", '{"$bytearray": {"$bytes": "YWI="}}'),
    "int": (-(2**70), "c70b05c4090000000000000000c0", "-1180591620717411303424"),
    "complex": (complex(-0.0, 2), "c7130692cb8000000000000000cb4000000000000000", '{"$complex": [-0.0, 2.0]}'),
    "range": (range(1, 9, 2), "d60793010902", '{"$range": [1, 9, 2]}'),
    "deque": (collections.deque([1], 3), "d60892039101", '{"$deque": [3, [1]]}'),
    "OrderedDict": (collections.OrderedDict(a=1), "d60981a16101", '{"$OrderedDict": {"a": 1}}'),
    "defaultdict": (
        collections.defaultdict(list, a=[1]),
        "c70b0a92a46c69737481a1619101",
        '{"$defaultdict": ["list", {"a": [1]}]}',
    ),
    "Counter": (collections.Counter("aab"), "c7070b82a16102a16201", '{"$Counter": {"a": 2, "b": 1}}'),
    "datetime": (
        MOMENT,
        "c72e1093ba323032362d31312d32315430393a32353a30312e30303035303001c70e15ad4575726f70652f4265726c696e",
        '{"$datetime": ["2026-11-21T09:25:01.000500", 1, {"$ZoneInfo": "Europe/Berlin"}]}',
    ),
    "naive datetime": (
        MOMENT.replace(tzinfo=None),
        "c71e1093ba323032362d31312d32315430393a32353a30312e30303035303001c0",
        '{"$datetime": ["2026-11-21T09:25:01.000500", 1, null]}',
    ),
    "utc datetime": (
        MOMENT.replace(tzinfo=datetime.UTC),
        "c7271093ba323032362d31312d32315430393a32353a30312e30303035303001c7071491d61393000000",
        '{"$datetime": ["2026-11-21T09:25:01.000500", 1, {"$timezone": [{"$timedelta": [0, 0, 0]}]}]}',
    ),
    "date": (MOMENT.date(), "c70b11aa323032362d31312d3231", '{"$date": "2026-11-21"}'),
    "time": (
        MOMENT.timetz(),
        "c7231293af30393a32353a30312e30303035303001c70e15ad4575726f70652f4265726c696e",
        '{"$time": ["09:25:01.000500", 1, {"$ZoneInfo": "Europe/Berlin"}]}',
    ),
    "timedelta": (datetime.timedelta(-1, 2, 3), "d61393ff0203", '{"$timedelta": [-1, 2, 3]}'),
    "timezone": (
        datetime.timezone(HOUR, "CET"),
        "c70e1492c706139300cd0e1000a3434554",
        '{"$timezone": [{"$timedelta": [0, 3600, 0]}, "CET"]}',
    ),
    "ZoneInfo": (zoneinfo.ZoneInfo("UTC"), "d615a3555443", '{"$ZoneInfo": "UTC"}'),
    "Decimal": (decimal.Decimal("-1.50E+9"), "c70918a82d312e3530452b39", '{"$Decimal": "-1.50E+9"}'),
    "Fraction": (fractions.Fraction(-1, 3), "c7031992ff03", '{"$Fraction": [-1, 3]}'),
    "UUID": (
        uuid.UUID(int=1),
        "c7261ad92430303030303030302d303030302d303030302d303030302d303030303030303030303031",
        '{"$UUID": "00000000-0000-0000-0000-000000000001"}',
    ),
    "safe UUID": (
        uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe),
        "c7281a92d92430303030303030302d303030302d303030302d303030302d30303030303030303030303100",
        '{"$UUID": ["00000000-0000-0000-0000-000000000001", 0]}',
    ),
    "Path": (
        pathlib.PurePosixPath("/a/b"),
        "c7141b92ad50757265506f73697850617468a42f612f62",
        '{"$Path": ["PurePosixPath", "/a/b"]}',
    ),
    "windows path": (
        pathlib.PureWindowsPath("c:/a"),
        "c7161b92af5075726557696e646f777350617468a4633a5c61",
        '{"$Path": ["PureWindowsPath", "c:\\\\a"]}',
    ),
    "Random": (
        random.Random(1),
        "24feaeff697cb45eaa328cfbce62b84dab172dc6ee818171e77ecaaa2216c363",
        "62705e29146333cb32fd09bdcf6b12778f37b26d3d2f10723e447cf18047bfe1",
    ),
    "enum": (Color.BLUE, "c7123092ab74657374732e436f6c6f72a4424c5545", '{"$type": ["tests.Color", "BLUE"]}'),
    "flag": (Access.READ | Access.WRITE, "c70f3092ac74657374732e41636365737303", '{"$type": ["tests.Access", 3]}'),
    "dataclass": (
        Particle(1, None),
        "c7213092ae74657374732e5061727469636c6582a8706f736974696f6e01a46d617373c0",
        '{"$type": ["tests.Particle", {"position": 1, "mass": null}]}',
    ),
    "slots": (
        Cell(1, 2),
        "c71a3092aa74657374732e43656c6c82a3726f7701a6636f6c756d6e02",
        '{"$type": ["tests.Cell", {"row": 1, "column": 2}]}',
    ),
    "named tuple": (
        Point(1, 2),
        "c7143092ab74657374732e506f696e7482a17801a17902",
        '{"$type": ["tests.Point", {"x": 1, "y": 2}]}',
    ),
    "numpy.array": (
        np.array([[1, 2], [3, 4]], "<i2"),
        "c7144094a33c6932920202a143c4080100020003000400",
        '{"$numpy.array": ["<i2", [2, 2], "C", {"$bytes": "AQACAAMABAA="}]}',
    ),
    "fortran": (
        np.asfortranarray(np.array([[1, 2], [3, 4]], ">i2")),
        "c7144094a33e6932920202a146c4080001000300020004",
        '{"$numpy.array": [">i2", [2, 2], "F", {"$bytes": "AAEAAwACAAQ="}]}',
    ),
    "datetime64": (
        np.array(5, "M8[25s]"),
        "c7174094a83c4d385b3235735d90a143c4080500000000000000",
        '{"$numpy.array": ["<M8[25s]", [], "C", {"$bytes": "BQAAAAAAAAA="}]}',
    ),
    "struct array": (
        np.zeros(1, STRUCT),
        "c748409498a673747275637492a161a16292a37c693193a56172726179a33e6638910292000892a174c018c3c29101a143c418000000000000000000000000000000000000000000000000",
        '{"$numpy.array": [["struct", ["a", "b"], ["|i1", ["array", ">f8", [2]]], [0, 8], ["t", null], 24, true, false], [1], "C", {"$bytes": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}',
    ),
    "numpy.scalar": (np.float64(0.1), "c70e4192a33c6638cb3fb999999999999a", '{"$numpy.scalar": ["<f8", 0.1]}'),
    "nan scalar": (
        np.float32("nan"),
        "c70b4192a33c6634c4040000c07f",
        '{"$numpy.scalar": ["<f4", {"$bytes": "AADAfw=="}]}',
    ),
    "longlong": (np.longlong(3), "c7054192a23c7103", '{"$numpy.scalar": ["<q", 3]}'),
    "numpy str": (np.str_("a\0"), "d74192a33c5532a26100", '{"$numpy.scalar": ["<U2", "a\\u0000"]}'),
    "void": (np.void(b"ab"), "c7094192a37c5632c4026162", '{"$numpy.scalar": ["|V2", {"$bytes": "YWI="}]}'),
    "numpy.dtype": (
        STRUCT,
        "c7294298a673747275637492a161a16292a37c693193a56172726179a33e6638910292000892a174c018c3c2",
        '{"$numpy.dtype": ["struct", ["a", "b"], ["|i1", ["array", ">f8", [2]]], [0, 8], ["t", null], 24, true, false]}',
    ),
    "record dtype": (
        np.dtype((np.record, [("a", "<i8")])),
        "c7174298a673747275637491a16191a33c6938910091c008c2c3",
        '{"$numpy.dtype": ["struct", ["a"], ["<i8"], [0], [null], 8, false, true]}',
    ),
    "numpy.SeedSequence": (
        np.random.SeedSequence(5, spawn_key=(1,)),
        "c70643940591010400",
        '{"$numpy.SeedSequence": [5, [1], 4, 0]}',
    ),
    "numpy.BitGenerator": (
        np.random.PCG64(1),
        "c7634493a5504347363483a5737461746582a57374617465c71305c4117ebc0f326f7d6e2a6c75dbfe4b485b9c00a3696e63c71305c4117b934057b95798a195f84526daf22a9200aa6861735f75696e74333200a875696e746567657200c705439401900400",
        "05f48c0ff48ed302f79baaaf4d32d063ae3ef5075ccfac6dd9475d5664e10da3",
    ),
    "MT19937": (
        np.random.MT19937(1),
        "df410b8abaadc0af3ef46501c04de9cb548d02b0883305779eb64afedf76aa8e",
        "37a1e49537ace2d277fd7de5d31a3e08b7fef1d7c049c6ced89c5a8009216366",
    ),
    "Philox": (
        np.random.Philox(1),
        "39a8b210d69061fb3e97d5d5bc253c78400420555735d3d9770c724dd7629d15",
        "871ce317b7ad4315e8d1bc84689a5b85bfcbcc22c9c1e02b85f1c68e9af4b26a",
    ),
    "SFC64": (
        np.random.SFC64(1),
        "c7614493a5534643363483a5737461746581a57374617465c72b4094a33c75389104a143c42039b5695a71afa368024d8c0e35453d96361a4de12ff873dd0d00000000000000aa6861735f75696e74333200a875696e746567657200c705439401900400",
        "8679c499574024a04792c59a3d96beab3a98812f27418b0acf0f0edecfac702d",
    ),
    "PCG64DXSM": (
        np.random.PCG64DXSM(1),
        "c7674493a950434736344458534d83a5737461746582a57374617465c71305c4117ebc0f326f7d6e2a6c75dbfe4b485b9c00a3696e63c71305c4117b934057b95798a195f84526daf22a9200aa6861735f75696e74333200a875696e746567657200c705439401900400",
        "0762bc05f9c874340d8c49999b54e4d500d05c214a2c3f578707df5c26b93e18",
    ),
    "numpy.Generator": (
        np.random.Generator(np.random.PCG64(1)),
        "c76645c7634493a5504347363483a5737461746582a57374617465c71305c4117ebc0f326f7d6e2a6c75dbfe4b485b9c00a3696e63c71305c4117b934057b95798a195f84526daf22a9200aa6861735f75696e74333200a875696e746567657200c705439401900400",
        "43343c8b52baa4cf676e8a4756e779441345dff96dd9bf6810a38656dfb3c99d",
    ),
    "numpy.RandomState": (
        np.random.RandomState(1),
        "347272393ba3f593fccb27fdf56beff223866191891e6fc65796414669cafd74",
        "eedb975cce9d70d6428704fbcfdf0cac4c3135b2224c0e3c2fcfc45106c7755e",
    ),
    "nan": (float("nan"), "cb7ff8000000000000", '{"$float": "7ff8000000000000"}'),
    "large int": (
        1 << 3000,
        "3d24027383e47886b764483df839f6d191d25008e87df0fdf50a515140f1d4bd",
        "f39b7e8b0b37486c5d9244094f22530391a1d17f4c5dea0a6f7afeebfd51cae8",
    ),
}

OUT_OF_BAND: dict[str, tuple[Any, str, str]] = {
    "array": (
        np.arange(4096, dtype="<u4"),
        "c70e4094a33c753491cd1000a143d43200",
        '{"$numpy.array": ["<u4", [4096], "C", {"$buffer": 0}]}',
    ),
    "fortran": (
        np.zeros((128, 128), "<f4").T.copy("F") + np.float32(1),
        "c70f4094a33c663492cc80cc80a146d43200",
        '{"$numpy.array": ["<f4", [128, 128], "F", {"$buffer": 0}]}',
    ),
    "bytes": (b"x" * 16384, "c70331d43200", '{"$blob": {"$buffer": 0}}'),
}


def brief(data: bytes) -> bytes:
    return data if len(data) < 200 else hashlib.sha256(data).hexdigest().encode()


@pytest.mark.parametrize("kind", GOLDEN)
def test_the_bytes_of_an_entry_never_change(kind: str) -> None:
    value, packed, text = GOLDEN[kind]
    data = get_codec("msgpack").encode(value, "state")
    assert (brief(data) if len(data) >= 200 else data.hex().encode()).decode() == packed
    assert identical(get_codec("msgpack").decode(data), value)
    line = get_codec("json").encode(value, "state")
    assert brief(line).decode("utf-8", "surrogatepass") == text
    assert identical(get_codec("json").decode(line), value)


@pytest.mark.parametrize("kind", OUT_OF_BAND)
def test_the_bytes_of_a_large_value_never_change(kind: str) -> None:
    value, packed, text = OUT_OF_BAND[kind]
    for codec, golden in ((get_codec("msgpack"), packed), (get_codec("json"), text)):
        encoded = codec.encode_value(value, "state")
        assert (encoded.head.hex() if codec.name == "msgpack" else encoded.head.decode()) == golden
        content = value if type(value) is bytes else value.tobytes("A")
        assert [bytes(memoryview(b"".join(buffer.chunks(999)))) for buffer in encoded.buffers] == [content]
        head = bytes.fromhex(golden) if codec.name == "msgpack" else golden.encode()
        source = MemorySource(type(encoded)(head, (MemoryBuffer(memoryview(content)),)))
        assert identical(codec.decode_value(head, source), value)


def test_every_row_of_the_table_has_its_golden_bytes() -> None:
    codec_table.by_code(64)
    rows = {row.code: row.tag for row in codec_table._by_code.values()}
    rows |= {codec_table.REGISTERED_CODE: codec_table.REGISTERED_TAG, codec_table.BUFFER_CODE: codec_table.BUFFER_TAG}
    documented = [line.split(None, 2)[:2] for line in (codec_table.__doc__ or "").splitlines() if line[:1].isdigit()]
    assert {int(code): tag for code, tag in documented} == rows
    assert set(rows.values()) - {"blob", "buffer", "type"} <= set(GOLDEN)
