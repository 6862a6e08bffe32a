#!/usr/bin/env python3
"""Write a large capture of the same bytes every time: `scripts/generate_capture.py FILE [COUNT [SIZE]]`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from tcbpf.net.generate import generate

if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    generate(sys.argv[1], *(int(word) for word in sys.argv[2:3]), **({"size": int(sys.argv[3])} if sys.argv[3:] else {}))
