#include "../bpf_endian.h"
