"""`tcbpf verify`: the report for a person and for a program, the budget, the profile, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tcbpf.cli import main

BROKEN = str(Path(__file__).parents[1] / "verifier" / "broken" / "common.c")
EXAMPLES = Path(__file__).parents[2] / "examples"
REJECT = ["verify", BROKEN, "--program", "missing_check"]


def test_a_refusal_is_told_in_terms_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(REJECT) == 1
    told = capsys.readouterr().out
    for word in ("reject", "packet_bounds", "variable: ip", "compare `ip + 1` with `end`", "if ((void *)(eth + 1) > end)"):
        assert word in told


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*REJECT, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["verdict"] == "reject" and report["errno"] == 13 and report["type"] == "sched_cls"
    assert report["variable"] == "ip" and report["state"].startswith("R") and report["slice"][-1]["pc"] == report["pc"]
    assert "log" not in report
    assert main([*REJECT, "--json", "-v"]) == 1
    assert json.loads(capsys.readouterr().out)["log"].rstrip().endswith("mark_read 0")


@pytest.mark.kernel
def test_the_live_kernels_refusal_is_told_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    reports = []
    for datapath in ("user", "kernel"):
        assert main([*REJECT, "--json", "--datapath", datapath]) == 1
        reports.append(json.loads(capsys.readouterr().out) | {"time_ms": 0})
    assert reports[0] == reports[1]


def test_a_budget_fails_and_names_the_dearest_lines(capsys: pytest.CaptureFixture[str]) -> None:
    walk = str(EXAMPLES / "ipv6_walk.c")
    assert main(["verify", walk, "--max-insns", "100000"]) == 0
    assert main(["verify", walk, "--max-insns", "5"]) == 1
    told = capsys.readouterr().out
    assert "over budget" in told and "for (depth = 0; depth < MAX_HEADERS; depth++)" in told


def test_several_programs_end_in_a_total(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(EXAMPLES / "classifier.c"), "--profile"]) == 0
    told = capsys.readouterr().out
    assert "cls_main" in told and told.splitlines()[-1].startswith("2 programs, 2 accepted, 0 rejected, ")


def test_what_is_not_there_is_an_error_of_the_user(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", BROKEN, "--program", "nothing"]) == 2
    assert main(["verify", BROKEN, "--kernel", "six"]) == 2
    assert "missing_check" in capsys.readouterr().err


def test_the_page_needs_no_network(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert main([*REJECT, "--html", str(page)]) == 1
    text = page.read_text()
    assert "packet_bounds" in text and "http" not in text.replace("http-equiv", "") and "<script src" not in text


UNALIGNED = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64[2]);
} m SEC(".maps");
SEC("tc") int cls(struct __sk_buff *skb)
{
	__u32 key = 0;
	char *value = bpf_map_lookup_elem(&m, &key);
	return value ? *(volatile __u32 *)(value + 2) : 0;
}
"""


@pytest.mark.parametrize("datapath", ["user", pytest.param("kernel", marks=pytest.mark.kernel)])
def test_alignment_is_asked_for_when_it_is_wanted(datapath: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "unaligned.c"
    source.write_text(UNALIGNED)
    assert main(["verify", str(source), "--datapath", datapath]) == 0
    assert main(["verify", str(source), "--strict-alignment", "--datapath", datapath]) == 1
    assert "misaligned value access off 0+0+2 size 4" in capsys.readouterr().out


OTHERS = """\
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
SEC("kprobe/tcp_sendmsg") int probe(void *regs) { return *(long *)(regs + 112) == 0; }
SEC("tc") int cls(struct __sk_buff *skb) { return 0; }
SEC("tc/ingres") int misspelt(struct __sk_buff *skb) { return 0; }
SEC("of_mine") int mine(struct xdp_md *md) { return md->rx_queue_index; }
"""


def test_programs_of_other_types_are_skipped_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "others.c"
    source.write_text(OTHERS)
    assert main(["verify", str(source), "--json", "--type", "xdp"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["program"], row["type"], row["verdict"]) for row in rows] == [
        ("probe", "kprobe", "skip"),
        ("cls", "sched_cls", "accept"),
        ("misspelt", "xdp", "accept"),
        ("mine", "xdp", "accept"),
    ]
    assert main(["verify", str(source), "--program", "probe"]) == 2
    assert "no program of a type that this verifier knows" in capsys.readouterr().err
    assert main(["verify", str(source)]) == 0
    told = capsys.readouterr()
    assert "kprobe/tcp_sendmsg probe: skipped" in told.out
    assert "is it 'tc/ingress'?" in told.err
