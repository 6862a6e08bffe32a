#include "../bpf_elf.h"
