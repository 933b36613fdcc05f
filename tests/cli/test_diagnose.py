"""The command `diagnose`: exit codes, JSON, controls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from entropilot.records import RunWriter


def make(folder: Path, rewards: list[float], truncated: float = 0.0) -> Path:
    writer = RunWriter(folder, {"name": folder.name})
    for i, reward in enumerate(rewards):
        row = {"entropy/policy_T1": 0.5 - 0.003 * i, "reward/mean": reward}
        writer.row(i + 1, row | {"completion/truncated": truncated * i / len(rewards)})
    writer.end("finished")
    writer.close()
    return folder


RISING = [0.2 + 0.005 * i + 0.002 * (i % 2) for i in range(60)]
FALLEN = [0.7 if i < 40 else 0.1 for i in range(60)]


def test_a_healthy_run_is_0_and_says_what_was_not_checked(run, tmp_path: Path) -> None:
    result = run("diagnose", str(make(tmp_path / "good", RISING)))
    assert result.code == 0
    first, second = result.out.splitlines()
    assert first == "good: no findings in 5 of 14 checks"
    assert second.startswith("  not checked, because nothing was logged for it: ") and "drift" in second


def test_a_collapsed_run_is_1_with_evidence_and_advice(run, tmp_path: Path) -> None:
    result = run("diagnose", str(make(tmp_path / "bad", FALLEN)), str(make(tmp_path / "good", RISING)))
    assert result.code == 1
    lines = result.out.splitlines()
    assert lines[0] == "bad: 1 finding"
    assert lines[1].startswith("  error: reward collapse, steps 6 to 60: reward/mean fell from 0.7 to 0.1")
    assert [line.split(":")[0].strip() for line in lines[2:5]] == ["meaning", "try", "false alarms"]
    assert "good: no findings in 5 of 14 checks" in lines


@pytest.mark.parametrize(
    ("fail_on", "truncated", "fallen", "code"),
    [
        ("warning", 0.5, False, 1),
        ("error", 0.5, False, 0),
        ("error", 0.0, True, 1),
        ("never", 0.5, True, 0),
    ],
)
def test_fail_on(run, tmp_path: Path, fail_on: str, truncated: float, fallen: bool, code: int) -> None:
    folder = make(tmp_path / "a", FALLEN if fallen else RISING, truncated)
    assert run("diagnose", str(folder), "--fail-on", fail_on).code == code


def test_a_healthy_a_collapsed_a_dead_and_an_exploding_run(run, tmp_path: Path) -> None:
    """Four logs of 60 steps: entropy halves and R rises; entropy vanishes and R stands; R is 0; entropy is tenfold."""
    steps = range(60)
    rising = [0.2 + 0.005 * i + 0.002 * (i % 2) for i in steps]
    logs = {
        "healthy": ([0.5 - 0.004 * i for i in steps], rising),
        "collapsed": ([max(0.5 - 0.05 * i, 0.004) for i in steps], [0.5 + 0.002 * (i % 2) for i in steps]),
        "dead": ([0.5 + 0.001 * (i % 3) for i in steps], [0.0] * 60),
        "exploding": ([0.5 if i < 40 else 0.5 + 0.25 * (i - 40) for i in steps], rising),
    }
    expected = {
        "healthy": (0, []),
        "collapsed": (1, [("entropy collapse", "warning", {"start": 0.375, "end": 0.004})]),
        "dead": (1, [("dead run", "error", None)]),
        "exploding": (1, [("entropy explosion", "error", None)]),
    }
    for name, (entropy, reward) in logs.items():
        rows = "".join(f"{i + 1},{h},{r}\n" for i, h, r in zip(steps, entropy, reward, strict=True))
        (tmp_path / f"{name}.csv").write_text("step,entropy,reward\n" + rows)
        result = run("diagnose", str(tmp_path / f"{name}.csv"), "--json")
        (document,) = json.loads(result.out)
        code, findings = expected[name]
        assert result.code == code, name
        assert [(f["name"], f["severity"]) for f in document["findings"]] == [f[:2] for f in findings], name
        for finding, (_, _, numbers) in zip(document["findings"], findings, strict=True):
            assert numbers is None or finding["numbers"] == pytest.approx(numbers)


def test_json_and_controls(run, tmp_path: Path) -> None:
    folder, control = make(tmp_path / "a", FALLEN), make(tmp_path / "b", RISING)
    result = run("diagnose", str(folder), "--json", "--against", str(control), "--against", str(control))
    assert result.code == 1
    (document,) = json.loads(result.out)
    assert [finding["name"] for finding in document["findings"]] == ["reward collapse", "below the controls"]
    assert document["findings"][0]["numbers"] == {"peak": pytest.approx(0.7), "end": pytest.approx(0.1)}
    assert document["findings"][0]["steps"] == [6, 60] and document["findings"][0]["also_in"] == []
    assert "drift" in document["not_logged"] and document["run"] == "a"


def test_bad_input_is_2(run, tmp_path: Path) -> None:
    result = run("diagnose", str(tmp_path / "nothing"))
    assert result.code == 2 and result.out == "" and "does not exist" in result.err
    assert run("diagnose", str(make(tmp_path / "a", RISING)), "--fail-on", "words").code == 2


def test_a_log_without_entropy_is_checked_for_what_it_holds(run, tmp_path: Path) -> None:
    """Rewards fall from 0.7 to 0.1; `fit`, which needs an entropy, goes on refusing the log and says how to log one."""
    log = tmp_path / "verl.log"
    lines = [f"step:{step} - critic/score/mean:{0.7 if step <= 40 else 0.1}" for step in range(1, 61)]
    log.write_text("\n".join(lines) + "\n", encoding="utf-8")
    result = run("diagnose", str(log), "--json")
    assert result.code == 1 and "The log has no entropy" in result.err
    (document,) = json.loads(result.out.partition("\n]")[0] + "\n]")
    assert [finding["name"] for finding in document["findings"]] == ["reward collapse"]
    assert {"entropy collapse", "entropy explosion"} <= set(document["not_logged"])
    refused = run("fit", str(log))
    assert refused.code == 2 and "has no entropy" in refused.err and "calculate_entropy=True" in refused.err
    assert run("diagnose", str(log), "--entropy", "entrop").code == 2


def test_too_few_steps_are_not_told_as_nothing_logged(run, tmp_path: Path) -> None:
    (tmp_path / "two.csv").write_text("step,entropy,reward\n1,0.5,0.1\n2,0.4,0.2\n")
    result = run("diagnose", "two.csv")
    few, nothing = result.out.splitlines()[-2:]
    assert "too few values of what is needed: dead run, reward collapse, entropy explosion" in few
    assert "nothing was logged for it: drift" in nothing and "entropy collapse" not in nothing
    (document,) = json.loads(run("diagnose", "two.csv", "--json").out)
    assert "entropy collapse" in document["too_short"] and "entropy collapse" not in document["not_logged"]
    # Five steps, in which entropy and reward collapse: no check judges by so few, and none is passed over in silence.
    rows = "".join(f"{i},{0.9 * 0.2**i},{0.9 * 0.2**i}\n" for i in range(1, 6))
    (tmp_path / "five.csv").write_text("step,entropy,reward\n" + rows)
    (document,) = json.loads(run("diagnose", "five.csv", "--json").out)
    assert document["findings"] == []
    assert {"dead run", "reward collapse", "entropy explosion", "entropy collapse"} == {
        *document["too_short"]
    }
    # A method that never acts is seen from three rows on, so five are not too few for it.
    rows = "".join(f"{i},0.5,{i / 10},{i}\n" for i in range(1, 6))
    (tmp_path / "chosen.csv").write_text("step,entropy,reward,chosen/tokens\n" + rows)
    (document,) = json.loads(run("diagnose", "chosen.csv", "--json").out)
    assert "inert method" not in document["too_short"] + document["not_logged"]


def test_a_log_too_short_to_judge_is_not_called_healthy(run, tmp_path: Path) -> None:
    result = run("diagnose", str(make(tmp_path / "short", RISING[:4])))
    assert (result.code, result.out.splitlines()[0]) == (0, "short: nothing could be checked")
    beside = run(
        "diagnose",
        str(tmp_path / "short"),
        "--against",
        str(make(tmp_path / "control", [0.4 + r for r in RISING])),
    )
    first, second, *_ = beside.out.splitlines()
    assert (beside.code, first) == (1, "short: 1 finding") and "below the controls" in second
