"""Object files: ELF, BTF, maps; Object, link, Program."""

from tcbpf.obj.link import Listed, SectionError, choose, link, programs, section_type, tail_programs, tail_section
from tcbpf.obj.load import load
from tcbpf.obj.program import Code, Func, HasSpec, Line, MapSpec, Object, Program, Reloc

__all__ = [
    "Code",
    "Func",
    "HasSpec",
    "Line",
    "Listed",
    "MapSpec",
    "Object",
    "Program",
    "Reloc",
    "SectionError",
    "choose",
    "link",
    "load",
    "programs",
    "section_type",
    "tail_programs",
    "tail_section",
]
