"""Objects of every shape that compilers and loaders have agreed on: what comes out of each."""

from __future__ import annotations

import struct

import pytest

from tcbpf.errors import InputError, ObjectError
from tcbpf.lang import compile_c
from tcbpf.obj import MapSpec, load
from tcbpf.obj.btf import Kind

HEAD = "#include <bpf_api.h>\n"


def build(text: str, **options) -> object:
    return load(compile_c(HEAD + text, **options), path="x.o")


def program(body: str = "return 0;", section: str = "tc", name: str = "prog") -> str:
    return f'SEC("{section}") int {name}(struct __sk_buff *skb) {{ {body} }}\n'


def legacy(*fields: str, struct_name: str = "struct bpf_elf_map") -> str:
    return "\n".join(f"{struct_name} __section_maps {field};" for field in fields)


def map_of(obj, name: str) -> MapSpec:
    return obj.maps[name]


# --- maps ----------------------------------------------------------------------------------------------------------------


def test_a_btf_map_has_its_numbers_and_types():
    obj = build("""
        struct key { __be32 addr; __u16 port; };
        struct { __uint(type, BPF_MAP_TYPE_LPM_TRIE); __uint(max_entries, 10); __uint(map_flags, BPF_F_NO_PREALLOC);
                 __type(key, struct key); __type(value, __u64); __uint(pinning, LIBBPF_PIN_BY_NAME); } m SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_RINGBUF); __uint(max_entries, 4096); } ring SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
                 __uint(key_size, 4); __uint(value_size, 100); } raw SEC(".maps");
    """)
    m = map_of(obj, "m")
    assert (m.type, m.key_size, m.value_size, m.max_entries, m.flags, m.pinning) == ("lpm_trie", 8, 8, 10, 1, 2)
    assert m.btf is not None and m.btf.name(m.key_type) == "struct key" and m.btf.name(m.value_type) == "__u64"
    assert (map_of(obj, "ring").type, map_of(obj, "ring").key_size) == ("ringbuf", 0)
    assert (map_of(obj, "raw").key_size, map_of(obj, "raw").value_size, map_of(obj, "raw").key_type) == (4, 100, 0)


def test_a_map_of_maps_has_its_inner_map_and_slots():
    obj = build("""
        struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 3);
                       __type(key, __u32); __type(value, __u64); } one SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
                 __array(values, struct inner); } outer SEC(".maps") = { .values = { [2] = &one } };
    """)
    outer = map_of(obj, "outer")
    assert (outer.type, outer.key_size, outer.value_size, outer.values) == ("array_of_maps", 4, 4, ((2, "one"),))
    assert outer.inner is not None and (outer.inner.type, outer.inner.max_entries, outer.inner.value_size) == ("array", 3, 8)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("__uint(max_entries, 1); __type(key, __u32);", "no type"),
        ("__uint(type, 1); __uint(colour, 1);", "unknown field 'colour'"),
        ("__uint(type, 1); __type(key, __u32); __uint(key_size, 8);", "key_size is"),
        ("__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS); __type(key, __u32);", "without an inner map"),
        ("__uint(type, 1); __uint(pinning, 7);", "pinning 7"),
        ("__uint(type, 1); int key;", "'key' is not a type"),
    ],
)
def test_a_wrong_btf_map_is_refused_where_it_stands(fields, words):
    with pytest.raises(ObjectError) as caught:
        build(f'struct {{ {fields} }} m SEC(".maps");')
    assert words in str(caught.value) and caught.value.section == ".maps" and caught.value.offset == 0


def test_maps_without_btf_ask_for_it():
    with pytest.raises(ObjectError, match="compile with -g"):
        build('struct { __uint(type, 1); } m SEC(".maps");', debug=False)


def test_a_legacy_map_has_all_nine_words():
    maps = legacy("m = { 1, 4, 8, 256, 1, 42, PIN_GLOBAL_NS, 0, 0 }", "n = { 2, 4, 4, 1 }")
    obj = build(maps + "BPF_ANNOTATE_KV_PAIR(m, __be32, __u64);")
    m, n = map_of(obj, "m"), map_of(obj, "n")
    assert (m.type, m.key_size, m.value_size, m.max_entries, m.flags, m.id, m.pinning) == ("hash", 4, 8, 256, 1, 42, 2)
    assert m.btf is not None and m.btf.name(m.key_type) == "__be32"
    assert (n.type, n.id, n.btf) == ("array", 0, None) and not obj.notes


@pytest.mark.parametrize("words", [4, 5, 7])
def test_a_short_legacy_map_is_filled_with_zeros_and_said(words):
    short = f"struct short_map {{ __u32 w[{words}]; }};"
    maps = legacy("m = { { 1, 4, 8, 256 } }", "n = { { 2, 4, 4, 1 } }", struct_name="struct short_map")
    obj = build(short + maps, debug=False)
    assert map_of(obj, "m") == MapSpec("m", "hash", 4, 8, 256, inner_idx=0)
    assert map_of(obj, "n").type == "array"
    assert obj.notes == (f"{36 - words * 4} bytes struct bpf_elf_map fixup performed due to size mismatch!",)


def test_a_long_or_mixed_legacy_section_is_refused():
    with pytest.raises(ObjectError, match="coming from future version"):
        build("struct long_map { __u32 w[10]; };" + legacy("m = { { 1 } }", struct_name="struct long_map"))
    with pytest.raises(ObjectError, match="are not 2 times struct bpf_elf_map"):
        build("struct odd { __u32 w[6]; };" + legacy("m = { 1 }") + legacy("n = { { 1 } }", struct_name="struct odd"))


def test_a_legacy_map_of_maps_finds_its_inner_map_by_id():
    obj = build(
        legacy(
            "inner = { .type = 2, .size_key = 4, .size_value = 4, .max_elem = 1, .id = 9, .inner_idx = 3 }",
            "outer = { .type = 12, .size_key = 4, .size_value = 4, .max_elem = 8, .inner_id = 9, .inner_idx = -1 }",
        )
    )
    outer = map_of(obj, "outer")
    assert outer.inner is not None and outer.inner.name == "inner" and outer.values == ((3, "inner"),)
    with pytest.raises(ObjectError, match="Map 'outer' cannot be created since no inner map ID defined!"):
        build(legacy("outer = { .type = 12, .size_key = 4, .size_value = 4, .max_elem = 8 }"))


def test_both_kinds_of_maps_in_one_object():
    obj = build(
        legacy("old = { 1, 4, 8, 256 }") + "struct { __uint(type, 2); __uint(max_entries, 1); __type(key, __u32); "
        '__type(value, __u32); } new SEC(".maps");'
        + program("__u32 k = 0; return bpf_map_lookup_elem(&new, &k) && bpf_map_lookup_elem(&old, &k);")
    )
    assert {r.symbol for r in obj.functions["prog"].relocs if r.kind == "map"} == {"old", "new"}


def test_global_data_becomes_array_maps():
    obj = build(
        'const volatile int limit = 7; int counter = 5; static int hits; int later SEC(".data.late") = 1;'
        + program("hits++; counter += limit; later++; return hits;")
    )
    rodata, data, bss = map_of(obj, ".rodata"), map_of(obj, ".data"), map_of(obj, ".bss")
    assert (rodata.contents, rodata.frozen, rodata.flags) == ((7).to_bytes(4, "little"), True, 1 << 7)
    assert (data.contents, data.frozen, data.type, data.max_entries) == ((5).to_bytes(4, "little"), False, "array", 1)
    assert (bss.contents, bss.value_size) == (None, 4) and map_of(obj, ".data.late").contents == b"\1\0\0\0"
    assert rodata.btf is not None and rodata.btf[rodata.value_type].kind == Kind.DATASEC
    assert rodata.btf[rodata.value_type].size == rodata.value_size == 4


def test_a_table_of_pointers_in_constant_data_is_refused():
    text = 'static const char *const names[] = { "one", "two", "three" };' + program("return names[skb->mark & 1][0];")
    with pytest.raises(ObjectError, match="holds addresses"):
        build(text)


# --- programs ------------------------------------------------------------------------------------------------------------


def test_entries_are_the_global_functions_outside_text():
    obj = build(
        "static __noinline int helper(int x) { return x + 1; } __noinline int shared(int x) { return helper(x) * 2; }"
        + program("return shared(skb->len);", "tc", "a")
        + program("return helper(1);", "tc", "b")
        + program(section="action", name="c")
    )
    assert obj.entries == ("a", "b", "c") and set(obj.functions) == {"a", "b", "c", "helper", "shared"}
    assert obj.functions["shared"].is_global and not obj.functions["helper"].is_global
    assert obj.functions["a"].relocs[0].symbol == "shared"


def test_code_without_a_section_is_an_entry_when_there_is_no_other():
    obj = load(compile_c("int plain(void) { return 3; }\n", debug=False))
    assert obj.entries == ("plain",) and obj.functions["plain"].section == ".text"


def test_a_static_function_alone_in_its_section_is_an_entry():
    obj = build('__section("p1") static int only(struct __sk_buff *skb) { return 0; }')
    assert obj.entries == ("only",)


def test_license_and_version():
    obj = build('BPF_LICENSE("Dual BSD/GPL"); __u32 _version SEC("version") = 0x61204;' + program())
    assert (obj.license, obj.kernel_version) == ("Dual BSD/GPL", 0x61204)
    with pytest.raises(ObjectError, match="license of 200 bytes"):
        build('char l[200] SEC("license") = "x";')


def test_lines_name_the_source_text():
    obj = build(program("\nskb->mark = 5;\nreturn 0;"))
    lines = obj.functions["prog"].lines
    assert lines[0].pc == 0 and any("skb->mark = 5;" in line.text and line.line == 3 for line in lines)
    assert all(line.file.endswith("<stdin>") for line in lines)


def test_without_debug_information_there_are_no_lines():
    obj = build(program(), debug=False)
    assert obj.functions["prog"].lines == () and obj.btf is None


# --- what is no object ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw() -> bytes:
    return compile_c(HEAD + program() + 'int x = 1; BPF_LICENSE("GPL");')


def patched(raw: bytes, at: int, form: str, value: int) -> bytes:
    out = bytearray(raw)
    struct.pack_into(form, out, at, value)
    return bytes(out)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda raw: b"", "not an ELF file"),
        (lambda raw: b"#include <linux/bpf.h>\n", "not an ELF file"),
        (lambda raw: raw[:40], "the file ends after 40 bytes"),
        (lambda raw: raw[:600], "beyond the end of the file"),
        (lambda raw: patched(raw, 4, "B", 1), "it is a 32-bit file"),
        (lambda raw: patched(raw, 5, "B", 2), "We are little endian, eBPF object is big endian!"),
        (lambda raw: patched(raw, 18, "<H", 62), "ELF format error, ELF file not for eBPF? (it is for x86-64"),
        (lambda raw: patched(raw, 16, "<H", 2), "not a relocatable object"),
        (lambda raw: patched(raw, 60, "<H", 0), "0 section headers"),
        (lambda raw: patched(raw, 62, "<H", 999), "section names in section 999"),
    ],
)
def test_what_is_no_object_is_said_in_one_line(raw, edit, words):
    with pytest.raises(ObjectError) as caught:
        load(edit(raw), path="x.o")
    assert words in str(caught.value) and str(caught.value).startswith("x.o: ") and "\n" not in str(caught.value)


def test_a_machine_of_zero_is_an_old_compiler_s(raw):
    assert load(patched(raw, 18, "<H", 0)).entries == ("prog",)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "none.o")
    with pytest.raises(InputError, match="Is a directory"):
        load(tmp_path)
