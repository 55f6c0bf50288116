"""Tests of `rejoinder plan`: its tables and files from a calibration, and targets and options that it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cluster.config_file import read_config
from cluster.environment import FILES_PER_CONNECTION, SPARE_FILES
from loadtest.capacity.calibration import Calibration, Level, StageLevel, TimeDistribution, save
from loadtest.scenario.scenario import CallerBehavior
from rejoinder.cli.main import app
from rejoinder.cli.plan.command import refuse_unmeasured_devices, refuse_unused_gpus, shares, slots
from rejoinder.cli.plan.inputs import node_type
from rejoinder.core.errors import ConfigError
from rejoinder.core.settings.settings import Settings, parse_settings

RUNNER = CliRunner()


def times(mean_s: float, spread: float = 0.2) -> TimeDistribution:
    return TimeDistribution(mean_s, ((0.0, mean_s * (1 - spread)), (0.5, mean_s), (1.0, mean_s * (1 + spread))))


def stage(requests: float, service_s: float, in_service: float, cores: float) -> StageLevel:
    points = times(service_s).points
    return StageLevel(
        1,
        requests=requests,
        served=int(requests),
        service_mean_s=service_s,
        service=points,
        queue_mean_s=0.0,
        in_service=in_service,
        cores=cores,
        memory_mb=300,
    )


def level(sessions: int) -> Level:
    """Return the calibration at one load: this many sessions for 100 s, with one turn of each session every 10 s.

    The 10 s are 3 s of speech, 2 s of thinking, 0.5 s until the answer and 4.5 s of reply.
    """
    turns = sessions * 10
    parts = {
        "voice_to_voice": 0.5, "silence": 0.07, "endpoint": 0.1, "stt": 0.02, "llm_first_token": 0.15,
        "first_segment": 0.05, "tts_first_audio": 0.08, "delivery": 0.03,
    }  # fmt: skip
    rate = turns / 100
    return Level(
        sessions=sessions, turns=turns, for_s=100, p50_ms=500, p95_ms=580, p99_ms=620, audio_s=4.5,
        parts={name: times(mean_s) for name, mean_s in parts.items()},
        stages={
            "stt": stage(turns, 0.12, rate * 0.12, 0.1 * rate), "llm": stage(turns, 0.4, rate * 0.4, 0.05 * rate),
            "tts": stage(2 * turns, 0.3, rate * 0.6, 0.2 * rate), "turn_detector": stage(turns, 0, 0, 0.04 * rate),
        },
        host_cores=0.02 + 0.005 * sessions, host_memory_mb=250 + sessions, in_kbps=560, out_kbps=190, frames_per_s=50,
    )  # fmt: skip


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    behavior = CallerBehavior(think_s=2.0, think_sigma=0.0)
    engines = {"stt": "whisper-base int8 (ctranslate2)", "llm": "emulated own curve", "tts": "piper en (onnxruntime)"}
    slots = {"stt": 2, "llm": 8, "tts": 4}
    path = tmp_path / "calibration.json"
    save(
        Calibration(
            tuple(level(n) for n in (4, 8, 12)),
            engines=engines,
            slots=slots,
            behavior=behavior,
            settings={"llm": {"engine": "emulated"}},
            machine="2 cores",
        ),
        path,
    )
    return path


def test_a_plan_from_end_to_end(calibration: Path, tmp_path: Path) -> None:
    """The tables name the basis of each number (predicted, extrapolated, published or given).

    The JSON has the target. The written configuration has the planned replicas with their spares, and its hosts admit
    the 60 sessions. The first node group has one spare node besides the needed ones.
    """
    target = ["--sessions", "60", "--tier", "good", "--p95-ms", "1200", "--spare", "1"]
    files = ["--json", str(tmp_path / "plan.json"), "--write", str(tmp_path / "out")]
    result = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *target, *files], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for word in (
        "extrapolated",
        "predicted (Erlang B, 8 hosts a caller)",
        "published, guide section 1.5",
        "given",
        "Emulated engines (llm)",
    ):
        assert word in result.output
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document["plan"]["target"]["sessions"] == 60
    settings = read_config(tmp_path / "out" / "ray_config.yaml").application.args
    components = document["plan"]["components"]
    for name in ("stt", "llm", "tts", "host", "turn_detector"):
        sized = components[name]["sized"]
        assert getattr(settings, name).autoscaling.max_replicas == sized["needed"] + sized["spare"]
    groups = yaml.safe_load((tmp_path / "out" / "node_groups.yaml").read_text())["groups"]
    assert groups[0]["nodes"] > groups[0]["of_which_spare"] == 1
    assert settings.host.max_sessions * components["host"]["sized"]["needed"] >= 60


def test_a_node_has_the_traffic_cores_and_files_of_its_entry(calibration: Path, tmp_path: Path) -> None:
    """The table of nodes has the callers' traffic of one node, and what HAProxy needs, while the spare node is missing.

    That is 1.3 ms of CPU per session and second times 1.3, and 2 files per session beside those of the process.
    """
    options = ["--sessions", "600", "--json", str(tmp_path / "plan.json"), "--cpu-node", "4:16"]
    result = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    made = json.loads((tmp_path / "plan.json").read_text())["plan"]
    group = made["groups"][0]
    sessions = made["inverted"]["admitted"] / (group["nodes"] - group["spare"])
    row = next(line for line in result.output.splitlines() if line.startswith("│ cpu "))
    cells = [cell.strip() for cell in row.split("│")]
    assert f"{sessions * 0.0013 * 1.3:.1f}" == cells[8]
    assert int(cells[9]) == round(SPARE_FILES + FILES_PER_CONNECTION * sessions)
    assert int(cells[9]) > sessions
    # The callers send 560 kbps of payload each, measured. Of that a node gets its part, headers come on top.
    assert float(cells[4]) > sessions * 0.56
    assert made["edge"]["in_kbps"] > made["inverted"]["admitted"] * 560


def test_a_model_that_does_not_fit_is_noted(calibration: Path) -> None:
    """A p95 that was measured more than 25% apart from the prediction is a risk of the plan, which the notes name."""
    document = json.loads(calibration.read_text())
    document["levels"][2]["p95_ms"] = 900.0
    changed_file = changed(calibration, levels=document["levels"])
    result = RUNNER.invoke(app, ["plan", "--calibration", changed_file, "--sessions", "20"], env={"COLUMNS": "400"})
    assert "The model does not fit the calibration: at 12 sessions" in result.output
    assert "at 8 sessions" not in result.output


def _latencies(output: str) -> list[str]:
    return [line for line in output.splitlines() if "voice to voice p" in line]


def test_only_a_plan_within_its_calibration_has_an_interval(calibration: Path) -> None:
    """Predicted latencies are printed with an interval (±) only if the plan is within the calibrated loads."""
    command = ["plan", "--calibration", str(calibration)]
    beyond = RUNNER.invoke(app, [*command, "--sessions", "60"], env={"COLUMNS": "200"})
    within = RUNNER.invoke(app, [*command, "--sessions", "3", "--per-host", "4"], env={"COLUMNS": "200"})
    assert len(_latencies(beyond.output)) == len(_latencies(within.output)) == 3
    for line in _latencies(beyond.output):
        assert "extrapolated, no interval" in line
        assert "±" not in line
    for line in _latencies(within.output):
        assert "predicted" in line
        assert "±" in line
        assert "± 0 ms" not in line


def test_published_engines_have_no_interval(calibration: Path) -> None:
    """With published engines, latencies are printed without an interval, because they are outside every calibration."""
    options = ["--sessions", "3", "--per-host", "4", "--engines", "published"]
    result = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options], env={"COLUMNS": "200"})
    assert all("extrapolated, no interval" in line for line in _latencies(result.output))
    assert len(_latencies(result.output)) == 3


def test_published_engines_are_written_and_named(calibration: Path, tmp_path: Path) -> None:
    """With published engines, the written configuration has their settings and a comment with their source."""
    options = ["--sessions", "30", "--engines", "published", "--write", str(tmp_path)]
    result = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    text = (tmp_path / "ray_config.yaml").read_text()
    assert "# llm: published, guide section 1.5" in text
    llm = read_config(tmp_path / "ray_config.yaml").application.args.llm
    assert (llm.engine, llm.resources.num_gpus) == ("openai_api", 0)


def test_gpus_for_an_engine_that_uses_them_are_accepted() -> None:
    """`--gpus` is accepted for every engine that computes here, and a share of 0 also for one that does not."""
    for llm in ("vllm", "embedded", "emulated"):
        refuse_unused_gpus({"stt": 0.25, "llm": 1, "tts": 0.5}, {"stt": "whisper", "llm": llm, "tts": "piper"})
    refuse_unused_gpus({"llm": 0}, {"llm": "openai_api"})


def test_gpus_for_a_server_elsewhere_are_refused(calibration: Path) -> None:
    """`--gpus` for a stage whose engine computes on a server elsewhere is refused; the error names option and stage."""
    options = ["--sessions", "20", "--gpus", "llm=1", "--engines", "published"]
    refused = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options]).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == "--gpus"
    assert "num_gpus of llm must be 0: engine openai_api computes on its own server" in refused.message


@pytest.mark.parametrize(
    ("measured", "planned", "says"),
    [
        (0, 0.25, r"measured stt on the CPU; its speed with num_gpus 0\.25 is unknown"),
        (0.5, 0.25, r"measured stt with num_gpus 0\.5; its speed with num_gpus 0\.25"),
        (0.5, 0, r"`--gpus stt=0\.5`"),
        (0.25, 0.25, ""),
        (0, 0, ""),
    ],
)
def test_a_stage_must_be_calibrated_on_its_gpu(measured: float, planned: float, says: str) -> None:
    """A stage is planned only for the GPU share that the calibration measured: another one has other service times."""
    calibrated = parse_settings({"stt": {"resources": {"num_gpus": measured}}})
    engines = {"stt": "whisper", "llm": "embedded", "tts": "piper"}
    if not says:
        refuse_unmeasured_devices({"stt": planned}, engines, calibrated)
        return
    with pytest.raises(ConfigError, match=says):
        refuse_unmeasured_devices({"stt": planned}, engines, calibrated)


def test_an_emulated_stage_may_change_its_gpus() -> None:
    """An emulated engine has the same service times with and without a GPU, so its calibration holds for both."""
    engines = {"stt": "emulated", "llm": "emulated", "tts": "emulated"}
    refuse_unmeasured_devices({"llm": 1}, engines, Settings())


def test_published_figures_contradict_an_emulated_model(calibration: Path) -> None:
    """An emulated model on one L4 is faster than published figures of an 8B model, and the plan says so."""
    options = ["--sessions", "60", "--gpus", "llm=1", "--gpu-node", "16:64:1:L4", "--llm-billions", "8"]
    result = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options], env={"COLUMNS": "250"})
    assert result.exit_code == 0, result.output
    assert "published, not measured here" in result.output
    assert "L4 for the emulated language model, and published figures say" in result.output
    assert "does not fit" in next(line for line in result.output.splitlines() if line.startswith("│ T4 "))


def test_gpus_of_a_hosted_model_are_not_estimated(calibration: Path) -> None:
    """A language model on a server elsewhere needs no GPU here, so `--llm-billions` is refused for it."""
    options = ["--sessions", "20", "--llm-billions", "8", "--engines", "published"]
    refused = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options]).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == "--llm-billions"


def changed(calibration: Path, **keys: object) -> str:
    """Change keys of the calibration's file, and return its path."""
    calibration.write_text(json.dumps(json.loads(calibration.read_text()) | keys))
    return str(calibration)


def test_without_a_file_the_calibrated_engines_are_written(calibration: Path, tmp_path: Path) -> None:
    """Without --config, the plan writes the calibrated settings, not the default engines."""
    result = RUNNER.invoke(
        app, ["plan", "--calibration", str(calibration), "--sessions", "20", "--write", str(tmp_path)]
    )
    assert result.exit_code == 0, result.output
    assert read_config(tmp_path / "ray_config.yaml").application.args.llm.engine == "emulated"


def test_other_settings_than_the_calibrated_are_refused(calibration: Path, tmp_path: Path) -> None:
    """A file that differs from the calibration in more than sizes is refused. Each differing setting is named."""
    other = {"llm": {"engine": "embedded"}, "stt": {"threads": 2}, "tts": {"max_ongoing_requests": 9}}
    file = tmp_path / "other.yaml"
    file.write_text(yaml.safe_dump({"applications": [{"args": other}]}))
    options = ["--sessions", "20", "--config", str(file)]
    refused = RUNNER.invoke(app, ["plan", "--calibration", str(calibration), *options]).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == "--config"
    for part in ("llm.engine: emulated was calibrated, embedded is planned", "stt.threads: 1 was calibrated, 2 is"):
        assert part in refused.message
    assert "tts" not in refused.message


def test_engines_that_the_server_did_not_run_are_refused(calibration: Path) -> None:
    """A calibration whose settings have another engine than the measured server is refused, with the stage's name."""
    other = {"llm": {"engine": "embedded"}}
    refused = RUNNER.invoke(
        app, ["plan", "--calibration", changed(calibration, settings=other), "--sessions", "20"]
    ).exception
    assert isinstance(refused, ConfigError)
    assert "llm.engine is embedded, but the server ran 'emulated own curve'" in refused.message


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"settings": {}}, "the settings"),
        ({"engines": {}}, "the engine of stt, the engine of llm, the engine of tts"),
        ({"engines": {"stt": "whisper-base int8 (ctranslate2)", "llm": "emulated own curve"}}, "the engine of tts"),
        ({"engines": {"stt": "", "llm": "emulated own curve", "tts": "piper en"}}, "the engine of stt"),
    ],
)
def test_a_calibration_that_does_not_say_what_it_measured_is_refused(
    calibration: Path, tmp_path: Path, keys: dict[str, object], says: str
) -> None:
    """Without settings or engine names, the plan would write the default engines, so it is refused."""
    options = ["--sessions", "20", "--write", str(tmp_path / "out")]
    refused = RUNNER.invoke(app, ["plan", "--calibration", changed(calibration, **keys), *options]).exception
    assert isinstance(refused, ConfigError)
    assert refused.field == "--calibration"
    assert f"does not name {says}, so" in refused.message
    assert refused.remedy.startswith("Calibrate again")
    assert not (tmp_path / "out").exists()


def test_features_outside_the_model_are_noted(calibration: Path, tmp_path: Path) -> None:
    """The output notes speculative replies, fillers and degradation, which the model omits, if they were calibrated."""
    document = json.loads(calibration.read_text())
    switches = {
        "Speculative replies": {"speculation": {"enabled": False}},
        "Fillers": {"conversation": {"filler_after_ms": 0}},
        "Degradation was on": {"degradation": {"enabled": False}},
    }
    for off in switches:
        changed = tmp_path / "calibration.json"
        changed.write_text(json.dumps(document | {"settings": document["settings"] | switches[off]}))
        result = RUNNER.invoke(app, ["plan", "--calibration", str(changed), "--sessions", "30"], env={"COLUMNS": "200"})
        assert [note for note in switches if note not in result.output] == [off]


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ([], "--calibration"),
        (["--url", "ws://127.0.0.1:9/v1"], "--knee"),
        (["--engines", "best"], "--engines"),
        (["--p95-ms", "200"], "--p95-ms"),
        (["--gpus", "stt"], "--gpus"),
        (["--day", "day.csv"], "--call-s"),
        (["--call-s", "60"], "--call-s"),
        (["--day", "day.csv", "--call-s", "60"], "--sessions"),
        (["--launch", "site.yaml"], "--write"),
        (["--cpu-node", "none"], "--cpu-node"),
        (["--cpu-node", "0.5:1"], "--cpu-node"),
    ],
)
def test_refusals_name_their_option(calibration: Path, options: list[str], option: str) -> None:
    """A missing or invalid option, or a target that cannot be met, raises ConfigError with the option to change."""
    source = [] if not options or options[0] == "--url" else ["--calibration", str(calibration)]
    result = RUNNER.invoke(app, ["plan", "--sessions", "20", *source, *options])
    assert isinstance(result.exception, ConfigError)
    assert result.exception.field == option


def test_options_are_read() -> None:
    """GPU shares, machine types and the slots of each engine are parsed. An invalid option is refused with its name."""
    assert shares("stt=0.25, llm=1") == {"stt": 0.25, "llm": 1.0}
    assert node_type("16:64:2", "--gpu-node").gpus == 2
    emulated = {"engine": "emulated", "emulation": {"slots": 7}}
    assert slots(parse_settings({"stt": emulated})) == {"stt": 7, "llm": 4, "tts": 1}
    hosted = {"engine": "openai_api", "base_url": "http://127.0.0.1:1/v1", "max_ongoing_requests": 50}
    assert slots(parse_settings({"llm": hosted}))["llm"] == 50
    for text in ("", "8", "a:b", "8:-1"):
        with pytest.raises(ConfigError, match="--cpu-node"):
            node_type(text, "--cpu-node")
    with pytest.raises(ConfigError, match="--gpus"):
        shares("vad=1")
