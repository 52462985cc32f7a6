"""YARA rules that take their time: a scan of 16 KiB is more than a millisecond of one processor."""

from __future__ import annotations

from benchmarks.load import MARKER

MARKER_RULE = f"""
rule Benchmark_Marker {{ strings: $a = "{MARKER}" condition: $a }}
"""
HEAVY_RULES = f"""{MARKER_RULE}rule Benchmark_Heavy {{
  condition: for any i in (0..filesize - 8) : (uint32(i) ^ uint32(i + 4) == 0xfedcba98 and uint8(i) * 3 == 7)
}}
"""
"""The second one looks at every offset and is never true, for no byte times three is seven."""
