"""The study file: what is refused, with which words, and that what is shown reads back the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from megavox.core.errors import MegavoxError, StudyError
from megavox.study import Study, load_study, parse_study, show_study
from megavox.study.sections import BatchesSection

GOOD = """\
name: knee
cohort:
  layout: decathlon
  folder: images
task:
  kind: segment
  classes: {bone: 1, cartilage: [2, 3]}
model:
  family: unet
  filters: 8
"""
WHERE = Path("/data/knee/study.yaml")


def parse(text: str, *changes: str) -> Study:
    return parse_study(text, where=WHERE, changes=changes)


def refusal(text: str, *changes: str) -> str:
    with pytest.raises(StudyError) as caught:
        parse(text, *changes)
    return str(caught.value)


def test_a_good_file_is_read_with_every_default() -> None:
    study = parse(GOOD)
    assert study.task.classes == {"bone": 1, "cartilage": [2, 3]}  # type: ignore[union-attr]
    assert (study.seed, study.split.test, study.batches.size) == (0, 0.2, "auto")


def test_unknown_key_names_the_line_the_nearest_key_and_all_keys_with_defaults() -> None:
    message = refusal(GOOD + "batches:\n  augment: {}\n  pach: [32, 32, 32]\n")
    assert f"{WHERE}:13" in message
    assert "batches.pach" in message and "Did you mean patch?" in message
    for name, field in BatchesSection.model_fields.items():
        assert name in message.split("Allowed here")[1]
        if isinstance(field.default, (int, float)):
            assert f"{name} ({field.default})" in message


def test_unknown_key_inside_a_chosen_family_shows_the_keys_of_that_family() -> None:
    message = refusal(GOOD.replace("filters: 8", "filtrs: 8"))
    assert f"{WHERE}:10" in message and "Did you mean filters?" in message
    assert "residual_units (0)" in message
    assert "depth" not in message  # of the resnet


def test_several_faults_are_told_together() -> None:
    message = refusal(GOOD.replace("filters: 8", "filters: many") + "sede: 3\n")
    assert f"{WHERE}:10" in message and f"{WHERE}:11" in message
    assert "Did you mean seed?" in message


@pytest.mark.parametrize(("line", "key", "words"), [
    ("seed: three", "seed", "found 'three'"),
    ("batches: {size: 0}", "batches.size", "found 0"),
    ("batches: {patch: 32}", "batches.patch", "found 32"),
    ("training: {budget: soon}", "training.budget", "20min"),
    ("training: {optimiser: {rate: -1}}", "training.optimiser.rate", "greater than 0"),
    ("images: {normalise: zscor}", "images.normalise", "Did you mean zscore?"),
    ("split: {test: 1.5}", "split.test", "less than 1"),
    ("cohort: {layout: decathlom, folder: x}", "cohort", "Did you mean decathlon?"),
    ("model: {filters: 3}", "model", "needs the key family. Allowed: unet, resnet"),
    ("name: ../up", "name", "letters, digits"),
])
def test_wrong_values(line: str, key: str, words: str) -> None:
    name = line.split(":")[0]
    text = yaml.safe_dump({k: v for k, v in yaml.safe_load(GOOD).items() if k != name}, sort_keys=False)
    message = refusal(text + line + "\n")
    assert f"{WHERE}:{len(text.splitlines()) + 1}: {key}" in message
    assert words in message


@pytest.mark.parametrize(("changes", "words"), [
    (["model={family: resnet}"], "resnet classifies"),
    (["task={kind: classify, classes: [a, b]}"], "unet segments"),
    (["task={kind: classify, classes: [a, b]}", "model={family: resnet}"], "has masks but no classes"),
    (["cohort={layout: folders, folder: x}"], "has classes but no masks"),
    (["task={kind: detect}"], "goes with detect"),
    (["cohort={layout: luna16, folder: x}"], "goes with detect"),
    (["cohort={layout: luna16, folder: x}", "task={kind: detect}", "model={family: resnet}"], "to detect take unet"),
    (["training.steps=10", "training.budget=1min"], "either steps or budget"),
    (["images.size=[3, 3]", "images.spacing_mm=[1, 1]"], "either size or spacing_mm"),
    (["split.test=0.6", "split.validation=0.5"], "leave nothing to train on"),
    (["split.folds=3", "split.fold=3"], "from 0 to 2"),
    (["task.classes={a: 1, b: 1}"], "each mask value may stand once"),
    (["task.classes={a: 0}"], "0 is the background"),
    (["task.class_weights=[1, 1]"], "needs 3 numbers"),
])
def test_impossible_combinations(changes: list[str], words: str) -> None:
    message = refusal(GOOD, *changes)
    assert words in message
    assert "Value error" not in message and "pydantic" not in message


@pytest.mark.parametrize(("text", "lines"), [
    (GOOD + "name: again\n", "1 and 11"), (GOOD.replace("filters: 8", "family: unet"), "9 and 10")])
def test_a_key_that_stands_twice_is_refused_with_both_lines(text: str, lines: str) -> None:
    assert f"stands twice, in lines {lines}" in refusal(text)


@pytest.mark.parametrize("text", ["name: [1,\n", "a: b: c\n", "\tname: x\n", "- a\n- b\n", "", "just words\n",
                                  "? [a]\n: 1\n", "name: !!python/object:os.system x\n", "a: *nowhere\n"])
def test_what_is_no_mapping_in_yaml_is_refused(text: str) -> None:
    assert str(WHERE) in refusal(text)


def test_a_missing_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="no such study file"):
        load_study(tmp_path / "nothing.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: Kn\xe4\n")
    with pytest.raises(StudyError, match=r"latin\.yaml"):
        load_study(tmp_path / "latin.yaml")
    with pytest.raises(StudyError, match="cannot be read"):
        load_study(tmp_path)


def test_set_changes_values_and_makes_sections() -> None:
    study = parse(GOOD, "seed=7", "training.optimiser.rate=1e-4", "batches.patch=[32, 48, 48]", "model.filters=16")
    assert (study.seed, study.batches.patch, study.model.filters) == (7, [32, 48, 48], 16)  # type: ignore[union-attr]
    assert study.training.optimiser.rate == 1e-4
    assert study.training.optimiser.warmup == 0.05


@pytest.mark.parametrize(("change", "words"), [
    ("seed", "is not key.path=value"), ("=3", "is not key.path=value"), ("seed=[1", "not YAML"),
    ("sed=3", "Did you mean seed?"), ("batches.szie=3", "Did you mean size?"), ("seed=x", "found 'x'"),
    ("name.first=x", "name"), ("training.device=gpu", "Did you mean cuda?"),
    ("training.device=GPU", "Did you mean cuda?"), ("training.device=cdua", "Did you mean cuda?"),
    ("training.precision=fp16", "Did you mean bfloat16?"), ("cohort.layout=nnunet", "Did you mean decathlon?"),
    ("training=3", "training: found 3, expected a section. Allowed here (with defaults): steps (auto), budget (null)")])
def test_a_bad_set_is_told_as_such(change: str, words: str) -> None:
    message = refusal(GOOD, change)
    assert words in message
    assert "--set" in message and change in message


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("20min", 1200.0), ("1.5h", 5400.0), ("2d", 172800.0)])
def test_a_budget_is_a_time(text: str, seconds: float) -> None:
    assert parse(GOOD, f"training.budget={text}").training.budget == seconds


@pytest.mark.parametrize("text", ["20 minutes", "-5min", "0s", "1.2.3h", "''", "45"])
def test_a_budget_that_is_no_time_is_refused(text: str) -> None:
    assert "training.budget" in refusal(GOOD, f"training.budget={text}")


@given(seconds=st.one_of(st.integers(1, 10**7), st.floats(0.01, 1e6).map(lambda value: round(value, 3))))
def test_a_budget_is_shown_as_it_is_read(seconds: float) -> None:
    study = parse(GOOD, f"training.budget={seconds:.3f}s")
    assert parse(show_study(study)).training.budget == study.training.budget == pytest.approx(seconds)


def test_steps_set_beside_the_budget_of_the_file() -> None:
    message = refusal(GOOD + "training: {budget: 20min}\n", "training.steps=2")
    assert message.startswith("--set training.steps=2") and "training.budget=null" in message


def test_the_schema_is_valid_and_holds_every_section() -> None:
    schema = json.loads(json.dumps(Study.model_json_schema()))
    assert set(schema["properties"]) == set(Study.model_fields)
    assert schema["additionalProperties"] is False
    refs = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(schema))
    assert refs and set(refs) <= set(schema["$defs"])


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    file = tmp_path / "deep" / "study.yaml"
    file.write_text(GOOD.replace("folder: images", "folder: ../images"))
    study = load_study(file)
    assert study.cohort.folder == tmp_path / "images"
    again = parse_study(show_study(study), where=Path("/elsewhere/study.yaml"))
    assert again == study  # an absolute path stays as it is
    home = load_study(file, ["cohort.folder=~/images"])
    assert home.cohort.folder == Path.home() / "images"


def test_every_path_of_a_study_is_made_absolute() -> None:
    text = yaml.safe_dump({"name": "x", "cohort": {"layout": "dicom", "folder": ".", "masks": "m", "table": "t.csv"},
                           "task": {"kind": "classify", "classes": ["a", "b"]},
                           "model": {"family": "resnet", "weights": "w.safetensors"}})
    study = parse(text)
    assert study.cohort.masks == WHERE.parent / "m"  # type: ignore[union-attr]
    assert study.cohort.table == WHERE.parent / "t.csv"  # type: ignore[union-attr]
    assert study.model.weights == WHERE.parent / "w.safetensors"  # type: ignore[union-attr]


fraction = st.floats(0, 0.49)


@settings(max_examples=40)
@given(data=st.fixed_dictionaries({
    "name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True),
    "seed": st.integers(0, 2**40),
    "split": st.fixed_dictionaries({"test": fraction, "validation": st.floats(0.01, 0.49)}),
    "batches": st.fixed_dictionaries({
        "patch": st.one_of(st.just("auto"), st.lists(st.integers(1, 512), min_size=2, max_size=3)),
        "foreground": st.floats(0, 1),
        "augment": st.fixed_dictionaries({"mirror": st.lists(st.sampled_from(["left-right", "up-down"]))})}),
    "training": st.fixed_dictionaries({
        "budget": st.one_of(st.none(), st.integers(1, 500).map(lambda n: f"{n}min"),
                            st.floats(1e-3, 1e9).map(lambda s: f"{s:.3f}s")),
        "optimiser": st.fixed_dictionaries({"rate": st.floats(1e-12, 10), "betas": st.tuples(fraction, fraction).map(
            list)})}),
    "task": st.fixed_dictionaries({"kind": st.just("segment"), "classes": st.dictionaries(
        st.text(min_size=1, max_size=8), st.integers(1, 1), min_size=1, max_size=1)})}))
def test_what_is_shown_reads_back_the_same(data: dict[str, Any]) -> None:
    study = parse(yaml.safe_dump({**yaml.safe_load(GOOD), **data}, allow_unicode=True))
    shown = show_study(study)
    assert parse_study(shown, where=WHERE) == study
    assert show_study(parse_study(shown, where=WHERE)) == shown


@settings(max_examples=150)
@given(at=st.integers(0, len(GOOD)), cut=st.integers(0, 6), text=st.text(
    alphabet=st.one_of(st.characters(codec="utf-8"), st.sampled_from("{}[]:,-&*!|>'\"#?% \n\t0~")), max_size=6))
def test_a_damaged_file_is_read_or_refused_never_a_crash(at: int, cut: int, text: str) -> None:
    try:
        parse(GOOD[:at] + text + GOOD[at + cut:])
    except MegavoxError as error:
        assert str(error)
