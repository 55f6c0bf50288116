"""Fixtures of the tests on a real Ray Serve: the spoken clips of the system tests."""

from __future__ import annotations

from tests.system.conftest import long_question, question

__all__ = ["long_question", "question"]
