"""Errors: what they say, and that they cross process borders whole."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pytest

from megavox.core import errors
from megavox.core.errors import ImageError, LabelError, MegavoxError, StoreError, UnreadableImage


def _kinds(kind: type[MegavoxError] = MegavoxError) -> list[type[MegavoxError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _kinds(below))]


def _raise(error: MegavoxError) -> None:
    raise error


@pytest.mark.parametrize("kind", _kinds())
@pytest.mark.parametrize("again", [lambda e: pickle.loads(pickle.dumps(e))  # noqa: S301
                                  , copy.copy, copy.deepcopy])
def test_a_copy_keeps_type_fields_and_notes(kind, again):
    error = kind("the found thing", where="a/b.nii", expected="something else", fix="Do this")
    error.case = "case 7"
    error.add_note("seen at night")
    other = again(error)
    assert type(other) is kind and str(other) == str(error) and vars(other) == vars(error)
    assert (other.found, other.where, other.expected, other.fix, other.case) == (
        "the found thing", "a/b.nii", "something else", "Do this", "case 7")
    assert other.__notes__ == ["seen at night"]


def test_a_reason_crosses_a_process_border():
    sent = [UnreadableImage("cut off", where="a.nii", reason="truncated"), LabelError("odd"), StoreError("gone")]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("forkserver")) as pool:
        for error in sent:
            received = pool.submit(_raise, error).exception()
            assert type(received) is type(error) and str(received) == str(error)
            assert getattr(received, "reason", None) == getattr(error, "reason", None)


@pytest.mark.parametrize(("fields", "text"), [
    ({}, "Found."),
    ({"where": "x"}, "x: Found."),
    ({"where": "x", "expected": "y"}, "x: Found. Expected: y."),
    ({"where": "x", "expected": "y", "fix": "Do"}, "x: Found. Expected: y. Do."),
    ({"fix": "Do"}, "Found. Do.")])
def test_a_message_says_what_where_expected_and_fix(fields, text):
    assert str(MegavoxError("Found", **fields)) == text


def test_reasons_are_distinct_words_and_may_be_given():
    kinds = _kinds(ImageError)
    assert len({kind.reason for kind in kinds}) == len(kinds)
    assert ImageError("x", reason="dimensions").reason == "dimensions" and ImageError.reason == "image"


def test_the_tree_in_the_docstring_is_the_tree():
    text = errors.__doc__ or ""
    assert all(kind.__name__ in text for kind in _kinds())
