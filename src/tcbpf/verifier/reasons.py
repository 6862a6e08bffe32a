"""Why a program is refused: the closed list, one row each, with the kernel's words and what to change.

Source:  the kernel's verifier log formats, kernel/bpf/verifier.c and kernel/bpf/btf.c (v6.18).
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from tcbpf.tables.row import Table


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason. `words` and `hint` are str.format() templates over the facts that the check gives.

    `safety` tells a refusal that guards memory, types or termination from one that is a matter of form or of this
    implementation's reach.
    """

    name: str
    words: str
    errno: int = errno.EACCES
    hint: str = ""
    safety: bool = True


def _form(name: str, words: str, hint: str = "", errno: int = errno.EINVAL) -> Reason:
    """Return a reason that is a matter of form."""
    return Reason(name, words, errno, hint, safety=False)


def _invalid(name: str, words: str, hint: str = "") -> Reason:
    """Return a safety reason that the kernel answers with EINVAL."""
    return Reason(name, words, errno.EINVAL, hint)


_RESERVED = "fields that an instruction does not use must be zero"

REASONS: Table[Reason] = Table(
    # --- the shape of the program -----------------------------------------------------------------------------------
    _form("unknown_opcode", "unknown opcode {code:02x}"),
    _form("invalid_ld_imm64", "invalid bpf_ld_imm64 insn", "a 16-byte load is two slots, the second all zero but imm"),
    _form("unrecognized_ld_imm64", "unrecognized bpf_ld_imm64 insn"),
    _form("reserved_ldx", "BPF_LDX uses reserved fields", _RESERVED),
    _form("reserved_stx", "BPF_STX uses reserved fields", _RESERVED),
    _form("reserved_st", "BPF_ST uses reserved fields", _RESERVED),
    _form("reserved_alu", "BPF_ALU uses reserved fields", _RESERVED),
    _form("reserved_mov", "BPF_MOV uses reserved fields", _RESERVED),
    _form("reserved_neg", "BPF_NEG uses reserved fields", _RESERVED),
    _form("reserved_end", "BPF_END uses reserved fields", _RESERVED),
    _form("reserved_jmp", "BPF_JMP/JMP32 uses reserved fields", _RESERVED),
    _form("reserved_ja", "BPF_JA uses reserved fields", _RESERVED),
    _form("reserved_call", "BPF_CALL uses reserved fields", _RESERVED),
    _form("reserved_exit", "BPF_EXIT uses reserved fields", _RESERVED),
    _form("reserved_ld_imm64", "BPF_LD_IMM64 uses reserved fields", _RESERVED),
    _form("reserved_ld_abs", "BPF_LD_[ABS|IND] uses reserved fields", _RESERVED),
    _form("invalid_alu_opcode", "invalid BPF_ALU opcode {op:x}"),
    _form("invalid_jmp_opcode", "invalid BPF_JMP/JMP32 opcode {op:x}"),
    _form("invalid_may_goto", "invalid may_goto off {off} imm {imm}"),
    _form("atomic_opcode", "BPF_ATOMIC uses invalid atomic opcode {imm:02x}"),
    _form("atomic_size", "invalid atomic operand size"),
    _form("register_number", "R{reg} is invalid", "registers are r0 to r10"),
    _form("jump_range", "jump out of range from insn {pc} to {to}"),
    _form("jump_into_ld_imm64", "jump into the middle of ldimm64 insn {pc}"),
    _form("no_exit", "last insn is not an exit or jmp", "end every function with exit or an unconditional jump"),
    _form("unreachable", "unreachable insn {pc}", "remove code that no path reaches"),
    _form("call_destination", "call to invalid destination"),
    _form("too_many_subprograms", "too many subprograms", errno=errno.E2BIG),
    _invalid("back_edge", "back-edge from insn {pc} to {to}", "without CAP_BPF a program may not loop"),
    _form("program_size", "the program has {count} instructions, the limit is {limit}", errno=errno.E2BIG),
    _form("too_many_maps", "The total number of maps per program has reached the limit of {limit}", errno=errno.E2BIG),
    _form("calls_privilege", "loading/calling other bpf or kernel functions are allowed for CAP_BPF and CAP_SYS_ADMIN",
          errno=errno.EPERM),
    _form("ld_abs_subprogram", "LD_ABS is not allowed in subprogs without BTF"),
    _form("tail_call_subprogram", "tail_call is not allowed in subprogs without BTF"),
    _form("ld_abs_return", "LD_ABS is only allowed in functions that return 'int'."),
    _form("tail_call_return", "tail_call is only allowed in functions that return 'int'."),
    _form("release", "{what} is not there before Linux {since}",
          "ask for a newer kernel, or do without", errno=errno.EOPNOTSUPP),

    # --- limits ------------------------------------------------------------------------------------------------------
    Reason("too_large", "BPF program is too large. Processed {count} insn", errno.E2BIG,
           "bound the loops more tightly, or split the program with tail calls or global functions"),
    Reason("too_complex", "The sequence of {count} jumps is too complex.", errno.EFAULT,
           "fewer branches may be open at a time: split the program"),
    _invalid("infinite_loop", "infinite loop detected at insn {pc}", "make the loop's condition change in every round"),
    Reason("call_depth", "the call stack of {frames} frames is too deep", errno.E2BIG, "at most 8 calls may be open"),
    Reason("call_depth_static", "the call stack of {frames} frames is too deep !", errno.E2BIG, "at most 8 calls may be open"),
    Reason("stack_depth", "combined stack size of {calls} calls is {depth}. Too large",
           hint="all open calls share 512 bytes of stack; move large variables to a map"),
    Reason("tail_call_depth", "tail_calls are not allowed when call stack of previous frames is {depth} bytes. Too large",
           hint="callers of a function with tail calls may use at most 256 bytes of stack"),

    # --- registers ---------------------------------------------------------------------------------------------------
    Reason("uninitialized_register", "R{reg} !read_ok", hint="give r{reg} a value on every path that leads here"),
    Reason("frame_pointer_write", "frame pointer is read only"),
    Reason("pointer_comparison", "R{reg} pointer comparison prohibited"),
    Reason("pointer_partial_copy", "R{reg} partial copy of pointer"),
    Reason("pointer_sign_extension", "R{reg} sign-extension part of pointer"),
    Reason("pointer_arithmetic_unary", "R{reg} pointer arithmetic prohibited"),
    _invalid("division_by_zero", "div by zero"),
    _invalid("shift_amount", "invalid shift {imm}"),

    # --- pointer arithmetic ------------------------------------------------------------------------------------------
    Reason("pointer_32bit", "R{reg} 32-bit pointer arithmetic prohibited", hint="use the 64-bit form"),
    Reason("pointer_maybe_null", "R{reg} pointer arithmetic on {type} prohibited, null-check it first",
           hint="compare the pointer with 0 and leave when it is 0, before using it"),
    Reason("pointer_arithmetic", "R{reg} pointer arithmetic on {type} prohibited"),
    Reason("pointer_pointer", "R{reg} pointer {op} pointer prohibited"),
    Reason("pointer_from_scalar", "R{reg} tried to subtract pointer from scalar"),
    Reason("pointer_stack_subtraction", "R{reg} subtraction from stack pointer prohibited"),
    Reason("pointer_bitwise", "R{reg} bitwise operator {op} on pointer prohibited"),
    Reason("pointer_operator", "R{reg} pointer arithmetic with {op} operator prohibited"),
    _invalid("pointer_constant_range", "math between {type} pointer and {value} is not allowed"),
    _invalid("pointer_offset_range", "{type} pointer offset {off} is not allowed"),
    _invalid("pointer_unbounded", "math between {type} pointer and register with unbounded min value is not allowed",
             "bound the register from below first, for example by using it as unsigned"),
    _invalid("pointer_out_of_bounds", "value {value} makes {type} pointer be out of bounds"),
    Reason("pointer_mixed_bounds",
           "R{reg} has unknown scalar with mixed signed bounds, pointer arithmetic with it prohibited for !root"),
    Reason("pointer_paths",
           "R{reg} tried to {op} from different maps, paths or scalars, pointer arithmetic with it prohibited for !root"),
    Reason("pointer_type_unprivileged",
           "R{reg} has pointer with unsupported alu operation, pointer arithmetic with it prohibited for !root"),
    Reason("pointer_limit", "R{reg} tried to {op} beyond pointer bounds, pointer arithmetic with it prohibited for !root"),
    Reason("stack_variable_unprivileged", "R{reg} variable stack access prohibited for !root, var_off={var} off={off}"),
    Reason("stack_range_unprivileged", "R{reg} stack pointer arithmetic goes out of range, prohibited for !root; off={off}"),

    # --- memory ------------------------------------------------------------------------------------------------------
    Reason("invalid_memory", "R{reg} invalid mem access '{type}'",
           hint="r{reg} holds {type} here, which cannot be dereferenced"),
    Reason("read_only_memory", "R{reg} cannot write into {type}"),
    Reason("misaligned", "misaligned {what}access off {var}+{off}+{add} size {size}"),
    Reason("misaligned_packet", "misaligned packet access off {align}+{var}+{off}+{add} size {size}"),
    _form("different_pointers", "same insn cannot be used with different pointers",
          "use separate instructions for the different kinds of memory"),
    Reason("negative_index", "R{reg} min value is negative, either use unsigned index or do a if (index >=0) check.",
           hint="make the index unsigned, or check that it is not negative"),
    Reason("unbounded_index", "R{reg} unbounded memory access, make sure to bounds check any such access",
           hint="compare the index with the size before the access"),
    Reason("map_value_bounds", "invalid access to map value, value_size={size_of} off={off} size={size}",
           hint="the value has {size_of} bytes; the access reaches from {off} to {end}"),
    Reason("map_key_bounds", "invalid access to map key, key_size={size_of} off={off} size={size}"),
    Reason("memory_bounds", "invalid access to memory, mem_size={size_of} off={off} size={size}"),
    Reason("packet_bounds", "invalid access to packet, off={off} size={size}, R{reg}(id={id},off={off},r={range})",
           hint="only {range} bytes are proved: compare the pointer plus {end} with data_end, and leave when it is larger, "
                "before the access"),
    Reason("packet_range", "R{reg} offset is outside of the packet", errno.EINVAL),
    Reason("packet_write", "cannot write into packet"),
    Reason("packet_helper", "helper access to the packet is not allowed"),
    Reason("map_key_write", "write to change key R{reg} not allowed"),
    Reason("map_write", "write into map forbidden, value_size={size_of} off={off} size={size}"),
    Reason("map_read", "read from map forbidden, value_size={size_of} off={off} size={size}"),
    Reason("map_call_write", "write into map forbidden"),
    Reason("special_field", "{field} cannot be accessed directly by load/store"),
    Reason("kptr_variable_offset", "kptr access cannot have variable offset"),
    Reason("kptr_misaligned", "kptr access misaligned expected={expected} off={off}"),
    Reason("kptr_size", "kptr access size must be BPF_DW"),
    Reason("kptr_helper", "kptr cannot be accessed indirectly by helper"),
    Reason("kptr_store", "store to referenced kptr disallowed"),
    Reason("kptr_immediate", "BPF_ST imm must be 0 when storing to kptr at off={off}"),
    Reason("kptr_mode", "kptr in map can only be accessed using BPF_MEM instruction mode"),
    Reason("ctx_access", "invalid bpf_context access off={off} size={size}",
           hint="no field of the context that this program type may use so is at {off}"),
    Reason("ctx_negative", "negative offset {type} ptr R{reg} off={off} disallowed"),
    Reason("ctx_modified", "dereference of modified {type} ptr R{reg} off={off} disallowed",
           hint="use the context pointer itself and put the offset into the instruction"),
    Reason("ctx_variable", "variable {type} access var_off={var} disallowed"),
    Reason("socket_access", "R{reg} invalid {type} access off={off} size={size}"),
    Reason("flow_keys_access", "invalid access to flow keys off={off} size={size}"),
    Reason("map_ptr_access", "map_ptr access not supported for map type {type}"),
    Reason("map_ptr_write", "only read from {type} is supported"),
    Reason("map_ptr_negative", "R{reg} is {type} invalid negative access: off={off}"),
    Reason("btf_access", "access beyond struct {type} at off {off} size {size}"),
    Reason("btf_write", "only read is supported"),
    Reason("btf_negative", "R{reg} is ptr_{type} invalid negative access: off={off}"),
    Reason("btf_variable", "R{reg} is ptr_{type} invalid variable offset: off={off}, var_off={var}"),
    Reason("leak_map", "R{reg} leaks addr into map"),
    Reason("leak_mem", "R{reg} leaks addr into mem"),
    Reason("leak_ctx", "R{reg} leaks addr into ctx"),
    Reason("leak_packet", "R{reg} leaks addr into packet"),
    Reason("leak_flow_keys", "R{reg} leaks addr into flow keys"),
    Reason("leak_return", "R{reg} leaks addr as return value"),
    Reason("leak_helper", "R{reg} leaks addr into helper function"),
    Reason("atomic_memory", "BPF_ATOMIC stores into R{reg} {type} is not allowed"),
    Reason("atomic_load_memory", "BPF_ATOMIC loads from R{reg} {type} is not allowed"),

    # --- the stack ---------------------------------------------------------------------------------------------------
    Reason("stack_bounds", "invalid {how} stack R{reg} off={off} size={size}",
           hint="a function's stack is the 512 bytes below r10"),
    Reason("stack_variable_bounds", "invalid variable-offset {how} stack R{reg} var_off={var} off={off} size={size}"),
    Reason("stack_unbounded", "invalid unbounded variable-offset {how} stack R{reg}",
           hint="bound the index before adding it to the stack pointer"),
    Reason("stack_uninitialized", "invalid read from stack off {off}+{i} size {size}",
           hint="write these bytes of the stack before reading them"),
    Reason("stack_uninitialized_helper", "invalid read from stack R{reg} off {off}+{i} size {size}",
           hint="initialise all {size} bytes that are handed over"),
    Reason("stack_uninitialized_variable", "invalid read from stack R{reg} var_off {var}+{i} size {size}"),
    Reason("stack_spill_size", "invalid size of register spill"),
    Reason("stack_fill_size", "invalid size of register fill"),
    Reason("stack_spill_corrupt", "attempt to corrupt spilled pointer on stack"),
    _invalid("stack_spill_caller", "cannot spill pointers to stack into stack frame of the caller"),
    Reason("stack_spill_variable", "spilled ptr in range of var-offset stack write; insn {pc}, ptr off: {off}", errno.EINVAL),
    Reason("stack_uninitialized_write", "uninit stack in range of var-offset write prohibited for !root; insn {pc}, off: {off}",
           errno.EINVAL),
    Reason("stack_leak", "leaking pointer from stack off {off}"),
    Reason("stack_variable_helper",
           "variable offset stack pointer cannot be passed into helper function; var_off={var} off={off} size={size}"),
    Reason("stack_variable_prohibited", "R{reg} variable offset stack access prohibited for !root, var_off={var}"),
    Reason("zero_sized_read", "invalid zero-sized read"),
    _invalid("stack_return", "cannot return stack pointer to the caller"),

    # --- leaving -----------------------------------------------------------------------------------------------------
    _invalid("return_not_scalar", "At program exit the register R{reg} is not a known value ({type})"),
    _invalid("return_range", "At program exit the register R{reg} has{value} should have been in [{low}, {high}]",
             "this program type returns a value from {low} to {high}"),
    _invalid("async_return_range",
             "At async callback return the register R{reg} has{value} should have been in [{low}, {high}]"),
    _invalid("async_return_not_scalar", "At async callback return the register R{reg} is not a known value ({type})"),
    _invalid("callback_return_range", "At callback return the register R{reg} has{value} should have been in [{low}, {high}]",
             "a callback returns 0 to go on or 1 to stop"),
    Reason("callback_return_not_scalar", "R0 not a scalar value"),
    _invalid("subprogram_return", "At subprogram exit the register R{reg} is not a scalar value ({type})"),
    _invalid("reference_leak", "Unreleased reference id={id} alloc_insn={pc}",
             "release what instruction {pc} acquired on every path"),
    _invalid("reference_leak_at", "{what} would lead to reference leak"),
    _invalid("lock_held", "{what} cannot be used inside bpf_spin_lock-ed region"),
    _invalid("irq_held", "{what} cannot be used inside bpf_local_irq_save-ed region"),
    _invalid("rcu_held", "{what} cannot be used inside bpf_rcu_read_lock-ed region"),
    _invalid("preempt_held", "{what} cannot be used inside bpf_preempt_disable-ed region"),

    # --- calls -------------------------------------------------------------------------------------------------------
    _form("unknown_helper", "invalid func unknown#{id}"),
    _form("helper_not_allowed", "program of this type cannot use helper bpf_{name}#{id}",
          "{name} is not there for programs of type {type}"),
    _form("gpl_only", "cannot call GPL-restricted function from non-GPL compatible program",
          'declare the program\'s license as "GPL"'),
    _invalid("might_sleep", "helper call might sleep in a non-sleepable prog"),
    _invalid("call_while_locked", "function calls are not allowed while holding a lock"),
    Reason("argument_type", "R{reg} type={type} expected={expected}"),
    _invalid("argument_release_offset", "R{reg} must have zero offset when passed to release func or trusted arg to kfunc"),
    _invalid("argument_not_referenced", "R{reg} must be referenced when passed to release function"),
    Reason("argument_constant", "R{reg} is not a known constant'"),
    Reason("argument_size_negative", "R{reg} min value is negative, either use unsigned or 'var &= const'"),
    Reason("argument_size_zero", "R{reg} invalid zero-sized read: u64=[{low},{high}]"),
    Reason("argument_size_unbounded", "R{reg} unbounded memory access, use 'var &= const' or 'if (var < const)'"),
    Reason("argument_null", "Possibly NULL pointer passed to helper arg{reg}"),
    Reason("argument_btf", "R{reg} is of type {type} but {expected} is expected"),
    Reason("argument_write", "{name}() may write into memory pointed by R{reg} type={type}"),
    _invalid("map_type", "cannot pass map_type {type} into func bpf_{name}#{id}",
             "a map of this type cannot be used with {name}"),
    _invalid("timer_map", "timer pointer in R1 map_uid={uid} doesn't match map pointer in R2 map_uid={other}"),
    _invalid("not_acquired", "func bpf_{name}#{id} reference has not been acquired before"),
    _invalid("more_references", "more than one arg with ref_obj_id R{reg} {one} {other}"),
    _invalid("local_storage_flags", "get_local_storage() doesn't support non-zero flags"),
    Reason("const_string_map", "R{reg} does not point to a readonly map'"),
    Reason("const_string_address", "R{reg} is not a constant address'"),
    Reason("const_string_access", "no direct value access support for this map type"),
    _invalid("const_string_end", "string is not zero-terminated"),
    _invalid("format_string", "Invalid format string"),
    _form("map_index", "fd {fd} is not pointing to valid bpf_map", errno=errno.EBADF),
    _form("direct_value_offset", "direct value offset of {off} is not allowed"),
    _form("direct_value_type", "no direct value access support for this map type"),
    _form("direct_value_range", "invalid access to map value pointer, value_size={size} off={off}"),
    _form("missing_func_info", "missing btf func_info", "compile with -g: callbacks need BTF"),
    _form("callback_not_static", "callback function not static"),
    _form("callback_main", "callback function cannot be the main program"),
    _form("callback_map", "callback function not allowed for map", errno=errno.EOPNOTSUPP),
    _invalid("global_arguments", "Caller passes invalid args into func#{func} ('{name}')"),
    _invalid("global_scalar", "R{reg} is not a scalar"),
    _invalid("global_ctx", "arg#{arg} expects pointer to ctx"),
    _invalid("global_nonnull", "arg#{arg} is expected to be non-NULL"),
    _invalid("global_locked", "global function calls are not allowed while holding a lock,\nuse static function instead"),
    _invalid("global_too_many_args", "Global function {name}() with {count} > 5 args. Buggy compiler."),
    _invalid("global_return", "Global function {name}() doesn't return scalar. Only those are supported."),
    _invalid("global_arg_size", "arg#{arg} reference type('{type}') size cannot be determined: -22"),
    _invalid("global_arg_type", "Arg#{arg} type {type} in {name}() is not supported yet."),
    _form("ld_abs_type", "BPF_LD_[ABS|IND] instructions not allowed for this program type"),
    _form("ld_abs_callback", "cannot use BPF_LD_[ABS|IND] within callback"),
    _invalid("ld_abs_ctx", "at the time of BPF_LD_ABS|IND R6 != pointer to skb", "keep the context in r6"),

    # --- kfuncs ------------------------------------------------------------------------------------------------------
    _form("kfunc_unknown", "kernel btf_id {id} is not a function"),
    _form("kfunc_missing", "calling kernel function {name} is not allowed", errno=errno.EACCES),
    _form("kfunc_gpl", "cannot call kernel function from non-GPL compatible program"),

    # --- locks, timers, dynptrs, iterators ---------------------------------------------------------------------------
    _invalid("lock_offset", "R{reg} doesn't have constant offset. {field} has to be at the constant offset"),
    _invalid("lock_btf", "map '{map}' has to have BTF in order to use {field}"),
    _invalid("lock_missing", "map '{map}' has no valid {field}"),
    _invalid("lock_place", "off {off} doesn't point to 'struct {field}' that is at {at}"),
    _invalid("lock_twice", "Locking two bpf_spin_locks are not allowed"),
    _invalid("lock_not_held", "bpf_spin_unlock without taking a lock"),
    _invalid("lock_other", "bpf_spin_unlock of different lock"),
    _form("lock_socket_filter", "socket filter progs cannot use bpf_spin_lock yet"),
    _invalid("kptr_place", "off={off} doesn't point to kptr"),
    _invalid("kptr_none", "R{reg} has no valid kptr"),
    Reason("kptr_not_referenced", "off={off} kptr isn't referenced kptr"),
    _invalid("dynptr_constant_offset", "dynptr has to be at a constant offset"),
    _invalid("dynptr_offset", "cannot pass in dynptr at an offset={off}"),
    _invalid("dynptr_type_arg", "arg#{arg} expected pointer to stack or const struct bpf_dynptr"),
    _invalid("dynptr_initialized", "Dynptr has to be an uninitialized dynptr"),
    _invalid("dynptr_uninitialized", "Expected an initialized dynptr as arg #{arg}"),
    _invalid("dynptr_kind", "Expected a dynptr of type {kind} as arg #{arg}"),
    _invalid("dynptr_const", "cannot pass pointer to const bpf_dynptr, the helper mutates it"),
    _invalid("dynptr_overwrite", "cannot overwrite referenced dynptr"),
    Reason("dynptr_write", "potential write to dynptr at off={off} disallowed"),
    _invalid("dynptr_not_acquired", "arg {arg} is an unacquired reference"),
    Reason("dynptr_data", "Unsupported reg type {type} for bpf_dynptr_from_mem data"),

    # --- this implementation's reach ---------------------------------------------------------------------------------
    _form("not_supported", "{what} is not supported by this verifier", "the live kernel may accept it: --datapath kernel",
          errno=errno.EOPNOTSUPP),
    name=lambda row: row.name,
    number=lambda row: row.name,
)
